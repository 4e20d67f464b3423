//! The key of a cache: which ingredients change a logit, and the digest over them that names the folder.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

/// What identifies a teacher's logits: everything that changes one of them, and nothing else.
///
/// The number of views, labels, device, provider, library versions and the container are not here: they are recorded
/// in the cache, so that moving a folder or a batch size never costs a capture. Every ingredient is a text that is the
/// same on every machine; none holds a path.
///
/// An ingredient that does not apply is left empty, and an empty one does not enter the digest. That way a later
/// version can know more ingredients without giving every existing cache a new key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CacheKey {
    /// BLAKE3 of the teacher's bytes, external data included, in hex.
    pub teacher: String,
    /// The name of the output that holds the logits.
    pub output: String,
    /// What that output holds: raw logits, probabilities, ...
    pub output_is: String,
    /// How the teacher's classes are mapped onto the dataset's, if they are.
    pub classes: String,
    /// A further output stored beside the logits, if there is one.
    pub features: String,
    /// How pixels become the teacher's input.
    pub preprocess: String,
    /// The arithmetic, as the recipe writes it: `f32` or `f16`.
    pub precision: String,
    /// Digest of every image of the split, in order, in hex.
    pub images: String,
    /// The family of views: augmentations in order with their parameters, seed and draw version.
    pub views: String,
    /// How rows are stored: the name of an [`Encoding`](crate::Encoding).
    pub encoding: String,
    /// How many images met in one run of the teacher, where a row depends on it: empty for all but dynamically quantised
    /// teachers.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub batch: String,
    /// For rows that were transcoded, the encodings that they went through before: `f32`, or `f32, f16`. Empty for rows that
    /// the teacher gave, which may differ from those in the last digit that the encoding keeps.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub transcoded: String,
}

/// An ingredient in which a cache differs from what is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The ingredient's name, as [`CacheKey::fields`] gives it.
    pub field: &'static str,
    /// What the cache was made with.
    pub cached: String,
    /// What the key that was looked for has in its place.
    pub wanted: String,
}

impl CacheKey {
    /// The ingredients by name, in the order in which they enter the digest.
    pub fn fields(&self) -> Vec<(&'static str, &str)> {
        vec![
            ("teacher", &self.teacher),
            ("output", &self.output),
            ("output_is", &self.output_is),
            ("classes", &self.classes),
            ("features", &self.features),
            ("preprocess", &self.preprocess),
            ("precision", &self.precision),
            ("images", &self.images),
            ("views", &self.views),
            ("encoding", &self.encoding),
            ("batch", &self.batch),
            ("transcoded", &self.transcoded),
        ]
    }

    /// The key of the same rows as the teacher gives them, in this encoding.
    pub(crate) fn direct(&self) -> CacheKey {
        CacheKey {
            transcoded: String::new(),
            ..self.clone()
        }
    }

    /// BLAKE3 over `logitcask key 0` and, for each ingredient that is not empty, name and value, each preceded by its
    /// length in bytes as a little-endian u64. The lengths keep neighbours from running into one another.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        let mut put = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        put("logitcask key 0");
        for (name, value) in self.fields() {
            if !value.is_empty() {
                put(name);
                put(value);
            }
        }
        *hasher.finalize().as_bytes()
    }

    /// The first twelve hex digits of the digest, as folder names carry them.
    pub fn key12(&self) -> String {
        hex(&self.digest()).chars().take(12).collect()
    }

    /// In which ingredients a cache with the key `cached` differs from this one.
    pub fn differences(&self, cached: &CacheKey) -> Vec<Difference> {
        let pairs = self.fields().into_iter().zip(cached.fields());
        pairs
            .filter(|((_, wanted), (_, cached))| wanted != cached)
            .map(|((field, wanted), (_, cached))| Difference {
                field,
                cached: cached.to_owned(),
                wanted: wanted.to_owned(),
            })
            .collect()
    }
}

/// Two lower-case hex digits a byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The 32 bytes that 64 lower-case hex digits stand for.
pub(crate) fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

/// Digests as hex in JSON.
pub(crate) mod hex_digest {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(
        digest: &[u8; 32],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::hex(digest))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(deserializer)?;
        super::unhex(&text).ok_or_else(|| D::Error::custom("expected 64 lower-case hex digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> CacheKey {
        CacheKey {
            teacher: "ab".into(),
            output: "logits".into(),
            encoding: "f16".into(),
            ..CacheKey::default()
        }
    }

    #[test]
    fn every_ingredient_changes_the_digest_and_is_named_when_it_differs() {
        let base = key();
        type Change = fn(&mut CacheKey) -> &mut String;
        let changes: [(&str, Change); 12] = [
            ("teacher", |k| &mut k.teacher),
            ("output", |k| &mut k.output),
            ("output_is", |k| &mut k.output_is),
            ("classes", |k| &mut k.classes),
            ("features", |k| &mut k.features),
            ("preprocess", |k| &mut k.preprocess),
            ("precision", |k| &mut k.precision),
            ("images", |k| &mut k.images),
            ("views", |k| &mut k.views),
            ("encoding", |k| &mut k.encoding),
            ("batch", |k| &mut k.batch),
            ("transcoded", |k| &mut k.transcoded),
        ];
        assert_eq!(changes.len(), base.fields().len());
        for (name, field) in changes {
            let mut other = base.clone();
            field(&mut other).push('x');
            assert_ne!(other.digest(), base.digest(), "{name}");
            let differences = other.differences(&base);
            assert_eq!(differences.len(), 1);
            assert_eq!(differences[0].field, name);
        }
    }

    #[test]
    fn neighbouring_ingredients_do_not_run_together() {
        let mut a = key();
        let mut b = key();
        (a.precision, a.images) = ("f32".into(), "1".into());
        (b.precision, b.images) = ("f3".into(), "21".into());
        assert_ne!(a.digest(), b.digest());
    }

    #[test]
    fn a_published_key_never_changes() {
        // Caches on people's disks are found by this number.
        assert_eq!(key().key12(), "2c3aae017352");
    }

    #[test]
    fn hex_goes_both_ways() {
        let digest = *blake3::hash(b"x").as_bytes();
        assert_eq!(unhex(&hex(&digest)), Some(digest));
        assert_eq!(unhex(&hex(&digest).to_uppercase()), None);
        assert_eq!(unhex("00"), None);
    }
}
