//! Where the well-known datasets are published. Fetching is not done here: this crate does not touch the network.

/// A dataset that can be downloaded.
#[derive(Clone, Copy, Debug)]
pub struct Publication {
    /// What `logitcask dataset get` calls it.
    pub name: &'static str,
    /// The `data.format` that reads it.
    pub format: &'static str,
    /// Its evaluation split.
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
    /// The official address.
    pub url: &'static str,
    /// Its length in bytes, where the publisher's is known.
    pub n_bytes: Option<u64>,
    /// What its publisher says it digests to.
    pub checksum: Checksum,
    /// What to do with it.
    pub unpack: Unpack,
}

/// A digest in hexadecimal digits. Publishers still give MD5: it tells a broken download, not a forged one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// 32 digits.
    Md5(&'static str),
    /// 64 digits.
    Sha256(&'static str),
    /// The publisher gives none.
    Unpublished,
}

/// How a fetched file becomes a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unpack {
    /// A gzipped tar archive.
    TarGz,
    /// A zip archive.
    Zip,
    /// It is kept as it is: the format reads it so.
    Keep,
}

/// The datasets that `logitcask dataset get` knows. Digests and lengths are those that torchvision checks, or that the
/// publisher states.
pub const PUBLICATIONS: &[Publication] = &[
    Publication {
        name: "cifar10",
        format: "cifar10",
        eval: "test",
        folder: "cifar-10-batches-bin",
        files: &[RemoteFile {
            url: "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            n_bytes: Some(170_052_171),
            checksum: Checksum::Md5("c32a1d4ab5d03f1284b67883e8d87530"),
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
            checksum: Checksum::Md5("03b5dce01913d631647c71ecec9e9cb8"),
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
                "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                26_421_880,
            ),
            fashion(
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/train-labels-idx1-ubyte.gz",
                "25c81989df183df01b3e8a0aad5dffbe",
                29_515,
            ),
            fashion(
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/t10k-images-idx3-ubyte.gz",
                "bef4ecab320f06d8554ea6380940ec79",
                4_422_102,
            ),
            fashion(
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/t10k-labels-idx1-ubyte.gz",
                "bb300cfdad3c16e7a12a480ee83cd310",
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
            checksum: Checksum::Md5("91f7769df0f17e558f3565bffb0c7dfb"),
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
            checksum: Checksum::Md5("90528d7ca1a48142e341f4ef8d21d0de"),
            unpack: Unpack::Zip,
        }],
        terms: "ImageNet's: non-commercial research",
    },
];

const fn fashion(url: &'static str, md5: &'static str, n_bytes: u64) -> RemoteFile {
    RemoteFile {
        url,
        n_bytes: Some(n_bytes),
        checksum: Checksum::Md5(md5),
        unpack: Unpack::Keep,
    }
}
