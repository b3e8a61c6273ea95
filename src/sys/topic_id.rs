//! The id that Kafka assigns to each new topic.

use base64::Engine as _;

/// A topic id in the text form of Kafka: 22 characters of URL-safe base64 without padding.
///
/// librdkafka formats topic ids in standard base64, which has the characters `+` and `/` instead of `-` and `_`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicId(String);

impl TopicId {
    /// Returns the topic id with the given 128 bits, or `None` if all bits are zero. A topic without an id has only
    /// zero bits.
    pub fn from_bits(most_significant: i64, least_significant: i64) -> Option<TopicId> {
        if most_significant == 0 && least_significant == 0 {
            return None;
        }
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&most_significant.to_be_bytes());
        bytes[8..].copy_from_slice(&least_significant.to_be_bytes());
        let text = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
        Some(TopicId(text))
    }

    /// Returns the topic id as text of 22 characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for TopicId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_url_safe_and_zero_is_none() {
        // The tested id contains both characters that differ between standard and URL-safe base64.
        let id = TopicId::from_bits(-0x0400_0000_0000_0001, -1).unwrap();
        assert_eq!(id.as_str(), "-____________________w");
        assert_eq!(TopicId::from_bits(0, 0), None);
        let id = TopicId::from_bits(0, 1).unwrap();
        assert_eq!(id.as_str(), "AAAAAAAAAAAAAAAAAAAAAQ");
    }
}
