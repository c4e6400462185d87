//! Keyspaces: made, changed, deleted.

use alloc::vec;

use kernel::KeyspaceId;
use placement::solve::COPIES_MAX;

use super::Changed;
use crate::refused::{Refused, Table};
use crate::state::{Keyspace, Name, Partition, Settings, State};
use crate::{KEYSPACES_MAX, PARTITIONS_MAX};

impl State {
    pub(super) fn create_keyspace(&mut self, keyspace: KeyspaceId, settings: &Settings) -> Changed {
        if self.keyspaces.contains_key(&keyspace) {
            return Err(Refused::KeyspaceExists(keyspace));
        }
        self.sound(keyspace, settings)?;
        if self.keyspaces.len() >= KEYSPACES_MAX {
            return Err(Refused::Full { table: Table::Keyspaces, limit: KEYSPACES_MAX as u64 });
        }
        let has: usize = self.keyspaces.values().map(|space| space.partitions.len()).sum();
        let count = usize::from(settings.partitions.count());
        if has + count > PARTITIONS_MAX {
            return Err(Refused::Full { table: Table::Partitions, limit: PARTITIONS_MAX as u64 });
        }
        let partitions = vec![Partition::default(); count];
        self.keyspaces.insert(keyspace, Keyspace { settings: settings.clone(), partitions });
        Ok(None)
    }

    pub(super) fn alter_keyspace(&mut self, keyspace: KeyspaceId, settings: &Settings) -> Changed {
        let is = &self.keyspaces.get(&keyspace).ok_or(Refused::KeyspaceUnknown(keyspace))?.settings;
        if is.mode != settings.mode {
            return Err(Refused::Fixed { keyspace, what: "mode" });
        }
        if is.partitions != settings.partitions {
            return Err(Refused::Fixed { keyspace, what: "number of partitions" });
        }
        self.sound(keyspace, settings)?;
        if let Some(space) = self.keyspaces.get_mut(&keyspace) {
            space.settings = settings.clone();
        }
        Ok(None)
    }

    pub(super) fn drop_keyspace(&mut self, keyspace: KeyspaceId, name: &Name) -> Changed {
        let is = &self.keyspaces.get(&keyspace).ok_or(Refused::KeyspaceUnknown(keyspace))?.settings.name;
        if is != name {
            return Err(Refused::OtherName { keyspace, name: name.clone(), is: is.clone() });
        }
        self.keyspaces.remove(&keyspace);
        Ok(None)
    }

    /// What holds for settings, new or changed.
    fn sound(&self, keyspace: KeyspaceId, settings: &Settings) -> Result<(), Refused> {
        if !(1..=COPIES_MAX).contains(&usize::from(settings.copies)) {
            return Err(Refused::Copies(settings.copies));
        }
        let taken = |(&other, space): (&KeyspaceId, &Keyspace)| {
            (other != keyspace && space.settings.name == settings.name).then_some(other)
        };
        match self.keyspaces.iter().find_map(taken) {
            Some(keyspace) => Err(Refused::NameTaken { name: settings.name.clone(), keyspace }),
            None => Ok(()),
        }
    }
}
