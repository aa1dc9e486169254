//! A set of agents, as one bit each: kept for every charge and return, and gone through in a round.

use super::AgentKey;

/// See the module's page.
#[derive(Debug, Default)]
pub(super) struct Agents {
    words: Vec<u64>,
}

// === impl Agents ===

impl Agents {
    pub(super) fn insert(&mut self, key: AgentKey) {
        let (word, bit) = place(key);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= bit;
    }

    pub(super) fn remove(&mut self, key: AgentKey) {
        let (word, bit) = place(key);
        if let Some(word) = self.words.get_mut(word) {
            *word &= !bit;
        }
    }

    pub(super) fn contains(&self, key: AgentKey) -> bool {
        let (word, bit) = place(key);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    /// All of them, in the order of their keys.
    pub(super) fn iter(&self) -> impl Iterator<Item = AgentKey> + '_ {
        let set = self.words.iter().enumerate().filter(|(_, word)| **word != 0);
        set.flat_map(|(at, word)| {
            let bits = (0..u64::BITS).filter(move |bit| word & (1 << bit) != 0);
            bits.map(move |bit| AgentKey(u32::try_from(at).unwrap_or(u32::MAX) * u64::BITS + bit))
        })
    }
}

fn place(key: AgentKey) -> (usize, u64) {
    ((key.0 / u64::BITS) as usize, 1 << (key.0 % u64::BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_is_there() {
        let mut agents = Agents::default();
        let keys = [0, 1, 63, 64, 200].map(AgentKey);
        keys.iter().for_each(|key| agents.insert(*key));
        assert_eq!(agents.iter().collect::<Vec<_>>(), keys);
        agents.remove(AgentKey(63));
        agents.remove(AgentKey(100_000));
        assert!(!agents.contains(AgentKey(63)) && agents.contains(AgentKey(64)));
        assert!(!agents.contains(AgentKey(100_000)));
        assert_eq!(agents.iter().count(), 4);
    }
}
