//! `wasi:filesystem` without the C library in between. The library normalises paths and never asks the host for one
//! that leaves a preopened directory; an attacker is not that polite.

use wasip2::filesystem::preopens;
use wasip2::filesystem::types::{Descriptor, DescriptorFlags, ErrorCode, OpenFlags, PathFlags};

pub(crate) fn preopens() -> Vec<(Descriptor, String)> {
    preopens::get_directories()
}

/// The preopened directory with this name.
pub(crate) fn directory(name: &str) -> Option<Descriptor> {
    preopens().into_iter().find(|(_, path)| path == name).map(|(descriptor, _)| descriptor)
}

/// Open for reading, following links.
pub(crate) fn open(directory: &Descriptor, path: &str) -> Result<Descriptor, ErrorCode> {
    directory.open_at(PathFlags::SYMLINK_FOLLOW, path, OpenFlags::empty(), DescriptorFlags::READ)
}

pub(crate) fn size(directory: &Descriptor, path: &str) -> Option<u64> {
    directory.stat_at(PathFlags::empty(), path).ok().map(|stat| stat.size)
}
