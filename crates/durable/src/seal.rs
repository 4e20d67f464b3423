//! Texts that end in the digest of what stands before it, so that a flipped byte in one is refused instead of believed.
//!
//! A JSON object carries it as its last member, `"blake3": "<64 hex digits>"`, and it runs over all bytes before the comma
//! in front of that member. Any other text carries it as a last line of comment, `# blake3 <64 hex digits>`, and it runs over
//! all lines before. Readers who do not know of it see an ordinary member, an ordinary comment.
//!
//! A digest tells damage. It is no signature: who rewrites a text on purpose can write a digest that fits.

/// In JSON that is written over several lines, as far as the digits; then comes [`TALL_END`].
const TALL: &str = ",\n  \"blake3\": \"";
const TALL_END: &str = "\"\n}\n";
/// The same on one line.
const FLAT: &str = ",\"blake3\":\"";
const FLAT_END: &str = "\"}";
const COMMENT: &str = "# blake3 ";

/// A text is not the one that was sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokenSeal {
    /// The digest of the text, in hex.
    pub computed: String,
    /// What stands in the digest's place.
    pub found: String,
}

impl std::fmt::Display for BrokenSeal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { computed, found } = self;
        write!(
            f,
            "its text has the digest `{computed}`, where its own should stand it says `{found}`"
        )
    }
}

impl std::error::Error for BrokenSeal {}

/// The text of a JSON object with its digest: over several lines and with a line's end where the object is written so, on
/// one line and without one where it is not.
pub fn seal_json(object: &str) -> String {
    if let Some(head) = object.trim_end().strip_suffix("\n}") {
        return format!("{head}{TALL}{}{TALL_END}", digest(head));
    }
    let head = object.trim_end();
    let head = head.strip_suffix('}').unwrap_or(head);
    format!("{head}{FLAT}{}{FLAT_END}", digest(head))
}

/// The JSON object without its digest; `None` if it carries none, as objects that were written before there were any.
///
/// # Errors
/// If the digest is not the text's. Objects of ours without a digest end in no string: one that does has lost it.
pub fn unseal_json(text: &str) -> Result<Option<String>, BrokenSeal> {
    let split = |open, end| text.strip_suffix(end)?.rsplit_once(open);
    if let Some((head, found)) = split(TALL, TALL_END) {
        return checked(head, found).map(|head| Some(format!("{head}\n}}")));
    }
    if let Some((head, found)) = split(FLAT, FLAT_END) {
        return checked(head, found).map(|head| Some(format!("{head}}}")));
    }
    let members = text.trim_end().strip_suffix('}').unwrap_or(text).trim_end();
    match members.ends_with('"') {
        true => Err(broken(text, last_line(text))),
        false => Ok(None),
    }
}

/// A text in which `#` begins a comment, with its digest.
pub fn seal_comment(text: &str) -> String {
    let end = if text.ends_with('\n') { "" } else { "\n" };
    let head = format!("{text}{end}");
    let digest = digest(&head);
    format!("{head}{COMMENT}{digest}\n")
}

/// The text without its last line, the digest; `None` if it carries none.
///
/// # Errors
/// If the digest is not the text's, or the last line is one but for a few characters.
pub fn unseal_comment(text: &str) -> Result<Option<&str>, BrokenSeal> {
    let line = last_line(text);
    let head = &text[..text.trim_end_matches('\n').len() - line.len()];
    // With the end of the line before it lost, the digest stands behind other words.
    let digits = line
        .rsplit_once(COMMENT)
        .filter(|(_, digits)| digits.len() == 64);
    if digits.is_some_and(|(before, _)| !before.is_empty()) {
        return Err(broken(text, line));
    }
    if !is_nearly_a_seal(line) {
        return Ok(None);
    }
    let found = line.strip_prefix(COMMENT).unwrap_or(line);
    checked(head, found).map(Some)
}

/// As long as a seal, or with the end of its line changed into one more character, and in the place of its digits hardly
/// anything else: a person's comment of that length has words there.
fn is_nearly_a_seal(line: &str) -> bool {
    let digits = line.as_bytes().get(COMMENT.len()..).unwrap_or_default();
    let n_hex = digits.iter().filter(|byte| byte.is_ascii_hexdigit());
    (64..=65).contains(&digits.len()) && n_hex.count() >= 60
}

fn checked<'a>(head: &'a str, found: &str) -> Result<&'a str, BrokenSeal> {
    match digest(head) == found {
        true => Ok(head),
        false => Err(broken(head, found)),
    }
}

fn broken(head: &str, found: &str) -> BrokenSeal {
    BrokenSeal {
        computed: digest(head),
        // The place of 64 digits, whatever a damaged file has made of it.
        found: found.chars().take(100).collect(),
    }
}

fn last_line(text: &str) -> &str {
    let text = text.trim_end_matches('\n');
    text.rsplit_once('\n').map_or(text, |(_, line)| line)
}

fn digest(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECTS: [&str; 4] = [
        "{\n  \"a\": 1,\n  \"b\": {\n    \"c\": [\n      2\n    ]\n  }\n}",
        "{\n  \"name\": \",\\n  \\\"blake3\\\": \\\"\",\n  \"n\": 1\n}\n",
        "{\"a\":1,\"b\":[{\"c\":2}]}",
        "{\"a\":\",\\\"blake3\\\":\\\"\",\"b\":2}\n",
    ];

    #[test]
    fn a_sealed_object_comes_back_and_is_an_object_with_one_member_more() {
        for object in OBJECTS {
            let sealed = seal_json(object);
            assert_eq!(
                unseal_json(&sealed).unwrap().unwrap(),
                object.trim_end(),
                "{sealed}"
            );
            assert_eq!(sealed.contains('\n'), object.trim_end().contains('\n'));
            let head = object.trim_end().trim_end_matches('}').trim_end();
            let digits = blake3::hash(head.as_bytes()).to_hex();
            assert!(sealed.contains(&*digits) || object.contains("}\n}"));
            assert_eq!(unseal_json(object), Ok(None), "it has no seal yet");
        }
    }

    /// A flip may leave a text that is no object any more, which its reader refuses; but none may leave an object that
    /// passes for one with other members, sealed or not.
    #[test]
    fn no_flipped_bit_passes() {
        for object in OBJECTS {
            let sealed = seal_json(object);
            for at in 0..sealed.len() {
                for bit in 0..8 {
                    let mut bytes = sealed.clone().into_bytes();
                    bytes[at] ^= 1 << bit;
                    let Ok(flipped) = String::from_utf8(bytes) else {
                        continue;
                    };
                    let passed = unseal_json(&flipped);
                    let is_object = flipped.trim_end().ends_with("\"}")
                        || flipped.trim_end().ends_with("\"\n}");
                    assert!(
                        passed.is_err() || !is_object,
                        "bit {bit} of byte {at}: {flipped}"
                    );
                    assert!(!matches!(passed, Ok(Some(_))), "bit {bit} of byte {at}");
                }
            }
        }
    }

    #[test]
    fn a_text_carries_its_digest_as_a_comment() {
        for text in [
            "a = 1\n",
            "a = 1",
            "",
            "# a comment\n[b]\nc = \"# blake3 \"\n",
        ] {
            let sealed = seal_comment(text);
            let whole = match text.ends_with('\n') {
                true => text.to_owned(),
                false => format!("{text}\n"),
            };
            assert_eq!(unseal_comment(&sealed), Ok(Some(&*whole)));
            assert_eq!(unseal_comment(text), Ok(None));
        }
        // By hand: `printf 'a = 1\n' | b3sum`.
        let digits = blake3::hash(b"a = 1\n").to_hex();
        assert_eq!(seal_comment("a = 1"), format!("a = 1\n# blake3 {digits}\n"));
    }

    #[test]
    fn a_broken_seal_says_both_digests() {
        let sealed = seal_json(OBJECTS[0]).replace(": 1", ": 3");
        let broken = unseal_json(&sealed).unwrap_err();
        let head = "{\n  \"a\": 3,\n  \"b\": {\n    \"c\": [\n      2\n    ]\n  }";
        assert_eq!(
            broken.computed,
            blake3::hash(head.as_bytes()).to_hex().to_string()
        );
        assert_eq!(broken.found.len(), 64);
        let told = broken.to_string();
        assert!(
            told.contains(&broken.computed) && told.contains(&broken.found),
            "{told}"
        );
        // What a damaged file has in the digest's place may be long.
        let endless = format!("{{\"a\":1{FLAT}{}{FLAT_END}", "f".repeat(1000));
        assert_eq!(unseal_json(&endless).unwrap_err().found.len(), 100);
    }

    /// It was taken for a broken seal, and the recipe refused as damaged.
    #[test]
    fn a_comment_as_long_as_a_seal_is_a_comment() {
        let words = "the numbers above are those of the first run, and nobody knows why they";
        let line = format!("# {words}");
        assert_eq!(line.len(), COMMENT.len() + 64);
        assert_eq!(unseal_comment(&format!("seed = 1\n{line}\n")), Ok(None));
    }

    #[test]
    fn no_flipped_bit_changes_a_text_unseen() {
        let text = "seed = 1\n[train]\nepochs = 3\n";
        let sealed = seal_comment(text);
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut bytes = sealed.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let Ok(flipped) = String::from_utf8(bytes) else {
                    continue;
                };
                // In the digest's own line a flip may hide the digest, but then the text is what it was, or the comment's
                // `#` is gone and with it what its reader would accept.
                if unseal_comment(&flipped).is_ok() {
                    assert!(at >= text.len(), "bit {bit} of byte {at}: {flipped}");
                    // A report printed the seal as a line of the recipe.
                    assert!(at + 1 < sealed.len(), "bit {bit} of the last byte");
                }
            }
        }
    }
}
