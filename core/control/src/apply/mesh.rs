//! Revisions of the proxies' settings: each follows the one before, and the last ones are remembered.

use alloc::sync::Arc;

use super::Changed;
use crate::mesh::{MeshSettings, REVISIONS_BYTES_MAX, REVISIONS_MAX, Revision, Source};
use crate::refused::Refused;
use crate::state::{Name, State};

impl State {
    pub(super) fn set_mesh(&mut self, after: Option<u64>, settings: &MeshSettings, by: &Name) -> Changed {
        self.must_follow(after)?;
        settings.check().map_err(Refused::Mesh)?;
        // Only here it is known what is in force: who asks may not have heard of the last one.
        if self.revision().is_some_and(|one| one.settings.as_ref() == Some(settings)) {
            return Ok(None);
        }
        self.revise(Source::Given, Some(settings.clone()), by)
    }

    pub(super) fn restore_mesh(&mut self, after: Option<u64>, to: u64, by: &Name) -> Changed {
        self.must_follow(after)?;
        let settings = match self.revisions.iter().find(|one| one.number == to) {
            Some(revision) => revision.settings.clone(),
            None if to == 0 => None,
            None => {
                let oldest = self.revisions.front().map_or(0, |one| one.number);
                return Err(Refused::RevisionUnknown { to, oldest, newest: self.revision_number() });
            }
        };
        self.revise(Source::Revision(to), settings, by)
    }

    fn must_follow(&self, after: Option<u64>) -> Result<(), Refused> {
        let is = self.revision_number();
        match after.filter(|after| *after != is) {
            Some(after) => Err(Refused::OtherRevision { after, is }),
            None => Ok(()),
        }
    }

    fn revise(&mut self, source: Source, settings: Option<MeshSettings>, by: &Name) -> Changed {
        // What is accepted raises the version by one.
        let (number, version) = (self.revision_number() + 1, self.version.saturating_add(1));
        let revision = Revision { number, version, by: by.clone(), at: self.now, source, settings };
        self.revisions.push_back(Arc::new(revision));
        while self.revisions.len() > 1 && !fits(&self.revisions) {
            self.revisions.pop_front();
        }
        Ok(None)
    }
}

/// Whether so many revisions are remembered.
pub(crate) fn fits<'a>(revisions: impl IntoIterator<Item = &'a Arc<Revision>>) -> bool {
    let (mut count, mut bytes) = (0, 0);
    for revision in revisions {
        (count, bytes) = (count + 1, bytes + revision.bytes());
    }
    count <= REVISIONS_MAX && bytes <= REVISIONS_BYTES_MAX
}

const _: () = assert!(crate::mesh::MESH_BYTES_MAX <= REVISIONS_BYTES_MAX);
