//! Which partition a key belongs to, the same as in every other client.

/// Kafka's variant of murmur2, with its seed.
fn murmur2(data: &[u8]) -> u32 {
    const MULTIPLIER: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    // Java's length is an `int`; keys that long are not sent.
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut hash = SEED ^ length;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut mixed = u32::from_le_bytes(*word).wrapping_mul(MULTIPLIER);
        mixed ^= mixed >> 24;
        mixed = mixed.wrapping_mul(MULTIPLIER);
        hash = hash.wrapping_mul(MULTIPLIER) ^ mixed;
    }
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    hash ^ (hash >> 15)
}

/// The partition of a key among `count` partitions; `count` must not be 0.
pub(super) fn partition_of(key: &[u8], count: u32) -> i32 {
    let positive = murmur2(key) & 0x7fff_ffff;
    // The remainder is below 2^31 because the hash is.
    i32::try_from(positive % count).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{murmur2, partition_of};

    /// The values of Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn murmur2_agrees_with_kafka() {
        fn check(key: &[u8], expected: i32) {
            assert_eq!(murmur2(key).cast_signed(), expected, "{key:?}");
        }
        check(b"21", -973_932_308);
        check(b"foobar", -790_332_482);
        check(b"a-little-bit-long-string", -985_981_536);
        check(b"a-little-bit-longer-string", -1_486_304_829);
        check(
            b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
            -58_897_971,
        );
        check(b"abc", 479_470_107);
    }

    #[test]
    fn partitions_are_in_range() {
        for count in [1, 2, 12, 1_000] {
            for key in 0..1_000_u32 {
                let partition = partition_of(key.to_string().as_bytes(), count);
                assert!((0..count.cast_signed()).contains(&partition));
            }
        }
    }
}
