//! Where the well-known datasets are published. Fetching is not done here: this crate does not touch the network.

/// A dataset that can be downloaded.
#[derive(Clone, Copy, Debug)]
pub struct Publication {
    /// What `logitcask dataset get` calls it.
    pub name: &'static str,
    /// The `data.format` that reads it.
    pub format: &'static str,
    /// Its evaluation split, as `data.eval` names it.
    pub eval: &'static str,
    /// The folder that its archive unpacks to, under which the dataset's files lie; empty where there is none.
    pub folder: &'static str,
    /// The files to fetch.
    pub files: &'static [RemoteFile],
    /// Under which terms it is published, in a few words.
    pub terms: &'static str,
}

/// One file to fetch.
#[derive(Clone, Copy, Debug)]
pub struct RemoteFile {
    /// The address at which the publisher has it.
    pub url: &'static str,
    /// Its length in bytes, where the publisher's is known.
    pub n_bytes: Option<u64>,
    /// What it digests to.
    pub checksum: Checksum,
    /// What to do with it.
    pub unpack: Unpack,
}

/// What guards a download. Publishers give MD5, which tells a broken download and not a forged one, and some addresses are plain
/// http: these are the SHA-256 digests that others have noted of the same files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// A SHA-256 digest in 64 hexadecimal digits.
    Sha256(&'static str),
    /// The publisher gives none.
    Unpublished,
}

/// How a fetched file becomes a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unpack {
    /// A gzipped tar archive.
    TarGz,
    /// A zip archive, to be unpacked.
    Zip,
    /// It is kept as it is: the format reads it so.
    Keep,
}

/// The datasets that `logitcask dataset get` knows. Lengths are the publishers'; digests are those of TensorFlow Datasets
/// (`url_checksums`), which fetches from the same addresses, and for `tiny-imagenet` that of several public projects.
pub const PUBLICATIONS: &[Publication] = &[
    Publication {
        name: "cifar10",
        format: "cifar10",
        eval: "test",
        folder: "cifar-10-batches-bin",
        files: &[RemoteFile {
            url: "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            n_bytes: Some(170_052_171),
            checksum: Checksum::Sha256(
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            ),
            unpack: Unpack::TarGz,
        }],
        terms: "no formal licence; cite Krizhevsky 2009",
    },
    Publication {
        name: "cifar100",
        format: "cifar100",
        eval: "test",
        folder: "cifar-100-binary",
        files: &[RemoteFile {
            url: "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
            n_bytes: Some(168_513_733),
            checksum: Checksum::Sha256(
                "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            ),
            unpack: Unpack::TarGz,
        }],
        terms: "no formal licence; cite Krizhevsky 2009",
    },
    Publication {
        name: "fashion-mnist",
        format: "fashion_mnist",
        eval: "test",
        folder: "",
        files: &[
            fashion(
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/train-images-idx3-ubyte.gz",
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                26_421_880,
            ),
            fashion(
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/train-labels-idx1-ubyte.gz",
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                29_515,
            ),
            fashion(
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/t10k-images-idx3-ubyte.gz",
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                4_422_102,
            ),
            fashion(
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/t10k-labels-idx1-ubyte.gz",
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                5_148,
            ),
        ],
        terms: "MIT",
    },
    Publication {
        name: "stl10",
        format: "stl10",
        eval: "test",
        folder: "stl10_binary",
        files: &[RemoteFile {
            url: "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
            n_bytes: Some(2_640_397_119),
            checksum: Checksum::Sha256(
                "f31fd99273a1acb8609c8db427cebb1de3f71de77758cdc0e22956e1289b9866",
            ),
            unpack: Unpack::TarGz,
        }],
        terms: "from ImageNet, research use; cite Coates, Lee and Ng 2011",
    },
    Publication {
        name: "tiny-imagenet",
        format: "image_folder",
        eval: "val",
        folder: "tiny-imagenet-200",
        files: &[RemoteFile {
            url: "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
            n_bytes: Some(248_100_043),
            checksum: Checksum::Sha256(
                "6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821",
            ),
            unpack: Unpack::Zip,
        }],
        terms: "ImageNet's: non-commercial research",
    },
];

const fn fashion(url: &'static str, sha256: &'static str, n_bytes: u64) -> RemoteFile {
    RemoteFile {
        url,
        n_bytes: Some(n_bytes),
        checksum: Checksum::Sha256(sha256),
        unpack: Unpack::Keep,
    }
}
