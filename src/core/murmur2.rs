//! Computes the partition of a key in the same way as Kafka's Java clients and librdkafka's partitioner
//! `murmur2_random`.
//!
//! The partition of a record with a key is `(murmur2(key) & 0x7fffffff) % partitions`. The producer of this program
//! lets librdkafka choose the partition. This module is for code that needs the partition before the record is sent,
//! such as the flow control of the embedded broker.

const SEED: u32 = 0x9747_b28c;
const M: u32 = 0x5bd1_e995;

/// Returns the murmur2 hash as Kafka computes it (`org.apache.kafka.common.utils.Utils.murmur2`).
pub fn murmur2(key: &[u8]) -> u32 {
    // The conversion of the length cannot fail, because no key in this program has more than 256 bytes.
    let mut h = SEED ^ u32::try_from(key.len()).unwrap_or(u32::MAX);
    let mut words = key.chunks_exact(4);
    for word in words.by_ref() {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        k = k.wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    for (at, byte) in rest.iter().enumerate().rev() {
        h ^= u32::from(*byte) << (8 * at);
    }
    if !rest.is_empty() {
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

/// Returns the partition of a key. The key must not be empty.
///
/// # Panics
/// Panics if `partitions` is less than one.
pub fn partition_of(key: &[u8], partitions: i32) -> i32 {
    assert!(partitions > 0, "a topic has at least one partition");
    i32::try_from(murmur2(key) & 0x7fff_ffff).unwrap_or(0) % partitions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_java_clients() {
        // The expected values come from Kafka's UtilsTest.testMurmur2.
        for (key, want) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), want, "{key}");
        }
    }

    #[test]
    fn the_partition_is_the_java_clients() {
        // The function clears the sign bit of the hash, so the hash of "21" becomes 1,173,551,340.
        for (key, partitions, want) in [
            ("21", 100, 40),
            ("foobar", 100, 66),
            ("abc", 100, 7),
            ("abc", 6, 3),
            ("abc", 1, 0),
        ] {
            assert_eq!(partition_of(key.as_bytes(), partitions), want, "{key}");
        }
    }
}
