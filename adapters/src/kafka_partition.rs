//! What a member knows of a partition that is its own: how far it came, and what of that it may commit.

/// A partition of this member, since it was assigned.
#[derive(Debug, Default)]
pub(crate) struct OwnPartition {
    /// First and last offset that a caller received.
    received: Option<(i64, i64)>,
    /// The offset up to which was committed.
    committed: i64,
    /// Whether everything in it has arrived in the buffer.
    pub(crate) at_end: bool,
}

impl OwnPartition {
    /// One of which the group has committed up to here.
    #[cfg(feature = "kafka")]
    pub(crate) fn committed_before(offset: i64) -> Self {
        Self {
            committed: offset,
            ..Self::default()
        }
    }

    /// Notes that a caller received a record. One that is not beyond the last is the first of a partition that was made anew: its
    /// topic was deleted and made again. What was received and committed of the old one says nothing of the new.
    pub(crate) fn receive(&mut self, offset: i64) {
        match self.received {
            Some((first, last)) if offset > last => self.received = Some((first, offset)),
            Some(_) => {
                self.received = Some((offset, offset));
                self.committed = 0;
            }
            None => self.received = Some((offset, offset)),
        }
    }

    fn has_received(&self, offset: i64) -> bool {
        self.received
            .is_some_and(|(first, last)| (first..=last).contains(&offset))
    }

    /// What is to be committed when the record at this offset is acknowledged. None when that is not this member's to say: a record
    /// from before the assignment may lie behind what the partition's owner in between has committed. Nor when it is said already.
    pub(crate) fn to_commit(&self, acknowledged: i64) -> Option<i64> {
        let next = acknowledged + 1;
        (self.has_received(acknowledged) && next > self.committed).then_some(next)
    }

    /// Notes a commit, unless the partition was made anew while it was under way.
    pub(crate) fn committed(&mut self, next: i64) {
        if self.has_received(next - 1) {
            self.committed = self.committed.max(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::OwnPartition;

    fn received(offsets: impl IntoIterator<Item = i64>) -> OwnPartition {
        let mut partition = OwnPartition::default();
        for offset in offsets {
            partition.receive(offset);
        }
        partition
    }

    #[test]
    fn what_was_received_is_committed_once_and_only_forward() {
        let mut partition = received([7, 8, 12]);
        assert_eq!(partition.to_commit(6), None, "another's");
        assert_eq!(partition.to_commit(13), None, "not received");
        assert_eq!(partition.to_commit(8), Some(9));
        partition.committed(9);
        assert_eq!(partition.to_commit(8), None, "said already");
        assert_eq!(partition.to_commit(12), Some(13));
        partition.committed(13);
        partition.committed(9);
        assert_eq!(partition.to_commit(8), None, "never back");
    }

    #[test]
    fn a_partition_made_anew_begins_anew() {
        let mut partition = received(100..150);
        partition.committed(150);
        partition.receive(0);
        assert_eq!(partition.to_commit(0), Some(1));
        assert_eq!(partition.to_commit(149), None, "of the old one");
        // Answered after the new one was there.
        partition.committed(150);
        partition.receive(1);
        assert_eq!(partition.to_commit(1), Some(2));
    }

    #[cfg(feature = "kafka")]
    #[test]
    fn what_the_group_committed_before_is_not_said_again() {
        let mut partition = OwnPartition::committed_before(5);
        partition.receive(4);
        partition.receive(5);
        assert_eq!(partition.to_commit(4), None);
        assert_eq!(partition.to_commit(5), Some(6));
    }
}
