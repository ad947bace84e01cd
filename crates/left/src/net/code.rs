//! Pairing codes: eight words that two people can read to each other.
//!
//! 77 random bits and 11 bits of checksum make 8 words of 11 bits from the English list of
//! BIP-39 (2,048 words, each known by its first four letters). The checksum catches a mistyped
//! code at the keyboard; the secrecy rests on the 77 bits, far out of reach of guessing.

use std::fmt;

use bip39::Language;

/// Words in a code.
pub const WORDS: usize = 8;
const WORD_BITS: u32 = 11;
/// Random bits; the last word is the checksum.
const SECRET_BITS: u32 = WORD_BITS * (WORDS as u32 - 1);

/// A pairing code. Whoever knows it may pair: show it, never log it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PairCode(u128);

impl fmt::Debug for PairCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PairCode(..)")
    }
}

/// A text is not a pairing code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// Too few or too many words.
    #[error("a pairing code has {WORDS} words; this one has {0}")]
    Count(usize),
    /// A word that is in no code.
    #[error("the pairing code is mistyped: `{0}` is not one of its words")]
    UnknownWord(String),
    /// All words exist, but they do not belong together.
    #[error("the pairing code is mistyped: its checksum does not match; compare it word by word")]
    Mistyped,
    /// The system's random numbers failed.
    #[error("cannot make a pairing code: no random numbers")]
    Random,
}

/// What both ends derive from a code.
#[derive(Clone)]
pub struct CodeKey([u8; 32]);

impl fmt::Debug for CodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CodeKey(..)")
    }
}

impl CodeKey {
    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PairCode {
    /// A new random code.
    pub fn generate() -> Result<Self, CodeError> {
        let mut bytes = [0; 16];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| CodeError::Random)?;
        Ok(Self(u128::from_be_bytes(bytes) >> (128 - SECRET_BITS)))
    }

    /// Reads a code as people type it: any case, words parted by spaces, dashes or commas, each
    /// word whole or any unique beginning of it.
    pub fn parse(text: &str) -> Result<Self, CodeError> {
        let words: Vec<String> = text
            .split(|c: char| c.is_whitespace() || matches!(c, '-' | ',' | '_' | '.'))
            .filter(|w| !w.is_empty())
            .map(str::to_lowercase)
            .collect();
        if words.len() != WORDS {
            return Err(CodeError::Count(words.len()));
        }
        let mut bits = 0_u128;
        for word in &words {
            bits = bits << WORD_BITS | u128::from(word_number(word)?);
        }
        let code = Self(bits >> WORD_BITS);
        let mask = (1_u128 << WORD_BITS) - 1;
        if bits & mask != u128::from(code.checksum()) {
            return Err(CodeError::Mistyped);
        }
        Ok(code)
    }

    /// The key that proofs are made with.
    pub fn key(&self) -> CodeKey {
        CodeKey(blake3::derive_key(
            "LEFT 1 2026-11 pairing code key",
            &self.0.to_be_bytes(),
        ))
    }

    fn checksum(&self) -> u16 {
        let sum = blake3::derive_key(
            "LEFT 1 2026-11 pairing code checksum",
            &self.0.to_be_bytes(),
        );
        u16::from_be_bytes([sum[0], sum[1]]) >> (16 - WORD_BITS)
    }
}

impl fmt::Display for PairCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = Language::English.word_list();
        let bits = self.0 << WORD_BITS | u128::from(self.checksum());
        for at in 0..WORDS {
            let shift = WORD_BITS as usize * (WORDS - 1 - at);
            if at > 0 {
                f.write_str("-")?;
            }
            f.write_str(list[(bits >> shift) as usize & (list.len() - 1)])?;
        }
        Ok(())
    }
}

fn word_number(word: &str) -> Result<u16, CodeError> {
    if let Some(number) = Language::English.find_word(word) {
        return Ok(number);
    }
    match Language::English.words_by_prefix(word) {
        [only] => Language::English.find_word(only),
        _ => None,
    }
    .ok_or_else(|| CodeError::UnknownWord(word.chars().take(32).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_shows_however_it_is_typed() {
        for _ in 0..200 {
            let code = PairCode::generate().unwrap();
            let text = code.to_string();
            assert_eq!(text.split('-').count(), WORDS);
            assert_eq!(PairCode::parse(&text), Ok(code));
            assert_eq!(PairCode::parse(&text.to_uppercase()), Ok(code));
            let spaced = format!("  {}\n", text.replace('-', "  "));
            assert_eq!(PairCode::parse(&spaced), Ok(code));
            let short: Vec<&str> = text.split('-').map(|w| &w[..w.len().min(4)]).collect();
            assert_eq!(PairCode::parse(&short.join(" ")), Ok(code));
        }
    }

    #[test]
    fn says_what_is_wrong() {
        assert_eq!(PairCode::parse(""), Err(CodeError::Count(0)));
        assert_eq!(PairCode::parse("abandon-ability"), Err(CodeError::Count(2)));
        let code = PairCode::generate().unwrap().to_string();
        let mut words: Vec<&str> = code.split('-').collect();
        words[2] = "xyzzy";
        let error = PairCode::parse(&words.join("-")).unwrap_err();
        assert_eq!(error, CodeError::UnknownWord("xyzzy".into()));
        assert!(error.to_string().contains("mistyped"));
    }

    #[test]
    fn a_changed_word_is_nearly_always_caught() {
        // 11 bits of checksum let 1 in 2,048 pass; a fixed code keeps the test deterministic.
        let code = PairCode(0x0123_4567_89ab_cdef_0123 >> 3);
        let text = code.to_string();
        let words: Vec<&str> = text.split('-').collect();
        let mut passed = 0;
        for wrong in Language::English.word_list() {
            let mut changed = words.clone();
            changed[3] = wrong;
            passed += usize::from(PairCode::parse(&changed.join("-")).is_ok());
        }
        assert!(passed <= 6, "{passed} of 2048 passed");
        let mut swapped = words.clone();
        swapped.swap(0, 1);
        assert_eq!(
            PairCode::parse(&swapped.join("-")),
            Err(CodeError::Mistyped)
        );
    }

    #[test]
    fn golden() {
        // Codes are typed on two machines that may run different versions: never change this.
        let code = PairCode(0);
        let text = code.to_string();
        assert_eq!(
            text,
            "abandon-abandon-abandon-abandon-abandon-abandon-abandon-spend"
        );
        assert_eq!(
            format!("{code:?} {:?}", code.key()),
            "PairCode(..) CodeKey(..)"
        );
    }
}
