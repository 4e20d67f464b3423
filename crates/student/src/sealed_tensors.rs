//! Safetensors files that carry their own digest.
//!
//! The header's metadata hold one entry, a JSON object under a name of ours, whose last member is `"blake3"`: BLAKE3 over the
//! whole file, header and all, with the 64 digits themselves taken as zeros. Other readers of safetensors see an entry that
//! they do not know.

use candle_core::Tensor;
use safetensors::{SafeTensorError, SafeTensors};

const MEMBER: &str = ",\"blake3\":\"";
const END: &str = "\"}";
const ZEROS: &[u8; 64] = &[b'0'; 64];

/// The file of these tensors, in the order of their names, so that equal tensors are equal files. `facts` is a JSON object on
/// one line, with at least one member.
pub(crate) fn to_bytes(
    key: &str,
    facts: &str,
    mut tensors: Vec<(&str, &Tensor)>,
) -> Result<Vec<u8>, SafeTensorError> {
    let head = facts.strip_suffix('}').unwrap_or(facts);
    let zeros = String::from_utf8_lossy(ZEROS);
    let facts = format!("{head}{MEMBER}{zeros}{END}");
    tensors.sort_by_key(|(name, _)| *name);
    // One entry alone: a map of two would be written in any order.
    let metadata = [(key.to_owned(), facts)].into();
    let mut bytes = safetensors::serialize(tensors, Some(metadata))?;
    let (n_header, _) = SafeTensors::read_metadata(&bytes)?;
    if let Some(at) = last_place_of(ZEROS, &bytes[8..8 + n_header]) {
        let digits = blake3::hash(&bytes).to_hex();
        bytes[8 + at..8 + at + 64].copy_from_slice(digits.as_bytes());
    }
    Ok(bytes)
}

/// The object under `key` without the digest; `None` where the file has no such entry. A file of before there were digests
/// has an object without one, and is believed.
///
/// # Errors
/// What is wrong with the file, as the end of a sentence.
pub(crate) fn facts(key: &str, bytes: &[u8]) -> Result<Option<String>, String> {
    let (n_header, header) = SafeTensors::read_metadata(bytes)
        .map_err(|error| format!("is not a safetensors file ({error})"))?;
    let Some(facts) = header.metadata().as_ref().and_then(|all| all.get(key)) else {
        return Ok(None);
    };
    let Some((head, digits)) = facts
        .strip_suffix(END)
        .and_then(|facts| facts.rsplit_once(MEMBER))
    else {
        return Ok(Some(facts.clone()));
    };
    let damaged = || "is damaged: its bytes do not have the digest that it carries".to_owned();
    let is_digest = digits.len() == ZEROS.len();
    let at = is_digest.then(|| last_place_of(digits.as_bytes(), &bytes[8..8 + n_header]));
    let at = 8 + at.flatten().ok_or_else(damaged)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes[..at]);
    hasher.update(ZEROS);
    hasher.update(&bytes[at + ZEROS.len()..]);
    match hasher.finalize().to_hex().as_str() == digits {
        true => Ok(Some(format!("{head}}}"))),
        false => Err(damaged()),
    }
}

fn last_place_of(wanted: &[u8], bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .rposition(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn file() -> Vec<u8> {
        let weights = Tensor::new(&[[1f32, -2.0], [3.5, 1e-9]], &Device::Cpu).unwrap();
        let bias = Tensor::new(&[0f32, 4.0], &Device::Cpu).unwrap();
        to_bytes("ours", "{\"a\":1}", vec![("w", &weights), ("b", &bias)]).unwrap()
    }

    #[test]
    fn a_file_comes_back_and_is_the_same_each_time() {
        let bytes = file();
        assert_eq!(bytes, file());
        assert_eq!(facts("ours", &bytes).unwrap().unwrap(), "{\"a\":1}");
        assert_eq!(facts("theirs", &bytes), Ok(None));
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(tensors.tensor("w").unwrap().shape(), [2, 2]);
        // By hand: the digest is that of the file with zeros in its place.
        let member = MEMBER.replace('"', "\\\"");
        let place = last_place_of(member.as_bytes(), &bytes).unwrap() + member.len();
        let digits = String::from_utf8(bytes[place..place + 64].to_vec()).unwrap();
        let mut zeroed = bytes.clone();
        zeroed[place..place + 64].fill(b'0');
        assert_eq!(blake3::hash(&zeroed).to_hex().as_str(), digits);
    }

    #[test]
    fn every_flipped_bit_is_told() {
        let bytes = file();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                // A flip in the entry's own name makes it nobody's, which its readers refuse.
                let passed = facts("ours", &flipped);
                let is_whole = matches!(&passed, Ok(Some(facts)) if facts == "{\"a\":1}");
                assert!(!is_whole, "bit {bit} of byte {at}: {passed:?}");
            }
        }
    }
}
