//! The directory that holds what the services of one checkout write.

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::Endpoints;
use crate::failure::Failure;

/// `/var/tmp/task-processor-<hash of the checkout's path>`: on a disk (so that an fsync is one), outside the checkout
/// (which a user of PostgreSQL's own may not be able to reach), and different for every checkout.
pub(crate) struct Place {
    root: PathBuf,
    checkout: PathBuf,
}

/// Held while services are started or stopped, so that two calls do not do it at once.
pub(super) struct Alone(#[expect(dead_code, reason = "the open file is the lock")] File);

impl Place {
    pub(crate) fn of_this_checkout() -> Result<Self, Failure> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let checkout = manifest.ancestors().nth(2).unwrap_or(manifest);
        let checkout = fs::canonicalize(checkout).map_err(Failure::at("find", checkout))?;
        let hash = fnv1a(checkout.as_os_str().as_encoded_bytes());
        let root = PathBuf::from(format!("/var/tmp/task-processor-{hash:016x}"));
        Ok(Self { root, checkout })
    }

    pub(crate) fn checkout(&self) -> &Path {
        &self.checkout
    }

    /// A name for things of this checkout that live elsewhere, such as a Compose project.
    pub(super) fn name(&self) -> String {
        self.root
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// A directory next to that of the services, which outlives them.
    pub(crate) fn beside(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = PathBuf::from(format!("{}-{name}", self.root.display()));
        fs::DirBuilder::new()
            .mode(0o755)
            .create(&path)
            .map_err(Failure::at("create", &path))?;
        // The PostgreSQL user walks through this directory, whatever the umask was.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .map_err(Failure::at("open up", &path))?;
        Ok(path)
    }

    pub(super) fn lock(&self) -> Result<Alone, Failure> {
        self.make()?;
        let path = self.path("lock");
        let file = File::create(&path).map_err(Failure::at("create", &path))?;
        file.lock().map_err(Failure::at("lock", &path))?;
        Ok(Alone(file))
    }

    fn make(&self) -> Result<(), Failure> {
        if !self.root.exists() {
            fs::DirBuilder::new()
                .mode(0o755)
                .create(&self.root)
                .map_err(Failure::at("create", &self.root))?;
        }
        let metadata = fs::symlink_metadata(&self.root).map_err(Failure::at("read", &self.root))?;
        // Anyone may create a name in /var/tmp: a directory laid out by somebody else is not ours to trust.
        if !metadata.is_dir() || metadata.uid() != own_uid()? {
            return Err(Failure::said(format!(
                "{} belongs to another user; remove it, or run as that user",
                self.root.display()
            )));
        }
        // The PostgreSQL user walks through this directory, whatever the umask was.
        fs::set_permissions(&self.root, fs::Permissions::from_mode(0o755))
            .map_err(Failure::at("open up", &self.root))?;
        let note = self.path("checkout");
        fs::write(&note, format!("{}\n", self.checkout.display()))
            .map_err(Failure::at("write", &note))
    }

    pub(super) fn keep_endpoints(&self, endpoints: &Endpoints) -> Result<(), Failure> {
        let path = self.path("ports");
        let Endpoints {
            postgres,
            redis,
            kafka_3,
            kafka_4,
        } = endpoints;
        fs::write(&path, format!("{postgres} {redis} {kafka_3} {kafka_4}\n"))
            .map_err(Failure::at("write", &path))
    }

    /// The ports of the last `up`; none if there was none since the last `down`.
    pub(super) fn endpoints(&self) -> Result<Option<Endpoints>, Failure> {
        let path = self.path("ports");
        if !path.exists() {
            return Ok(None);
        }
        let text = fs::read_to_string(&path).map_err(Failure::at("read", &path))?;
        let ports: Vec<u16> = text
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        match ports[..] {
            [postgres, redis, kafka_3, kafka_4] => Ok(Some(Endpoints {
                postgres,
                redis,
                kafka_3,
                kafka_4,
            })),
            _ => Err(Failure::said(format!(
                "{} does not hold four ports; remove it",
                path.display()
            ))),
        }
    }

    /// Removes the directory with all data in it.
    pub(super) fn forget(&self, alone: Alone) -> Result<(), Failure> {
        fs::remove_dir_all(&self.root).map_err(Failure::at("remove", &self.root))?;
        drop(alone);
        Ok(())
    }
}

/// The user this process runs as. `/proc/self` belongs to it.
pub(super) fn own_uid() -> Result<u32, Failure> {
    let path = Path::new("/proc/self");
    Ok(fs::metadata(path).map_err(Failure::at("read", path))?.uid())
}

pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
