//! What the model does not reach: caps, what other processes do below, permissions, special files, the shelf.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::{ChangeKind, Id, Layer, MAX_NAME_BYTES};

fn below() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn over(dir: &tempfile::TempDir, bytes: u64) -> Layer {
    Layer::over(&[dir.path()], bytes).unwrap()
}

fn find(layer: &mut Layer, path: &str) -> Result<Option<Id>, Errno> {
    let root = layer.root(0)?;
    let parts: Vec<String> = path.split('/').map(str::to_owned).collect();
    layer.resolve(root, &parts, true).map(|found| found.node)
}

fn text(layer: &mut Layer, path: &str) -> String {
    let id = find(layer, path).unwrap().unwrap();
    let mut buffer = [0; 100];
    let count = layer.open(id, false, false).unwrap().read_at(&mut buffer, 0).unwrap();
    String::from_utf8(buffer[..count].to_vec()).unwrap()
}

fn changes(layer: &Layer) -> Vec<(ChangeKind, String, u64)> {
    layer.changes().list.into_iter().map(|c| (c.kind, c.path, c.bytes)).collect()
}

#[test]
fn the_cap_counts_the_bytes_that_the_layer_holds() {
    let dir = below();
    fs::write(dir.path().join("big"), [1; 60]).unwrap();
    let mut layer = over(&dir, 100);
    let root = layer.root(0).unwrap();
    let new = layer.create_file(root, "new").unwrap();
    let content = layer.open(new, true, false).unwrap();
    content.write_at(&[2; 50], Some(0)).unwrap();
    // Writing over what is there takes no more room, and neither does reading what is below.
    content.write_at(&[3; 50], Some(0)).unwrap();
    assert_eq!((layer.room.left(), text(&mut layer, "big").len()), (50, 60));
    let big = find(&mut layer, "big").unwrap().unwrap();
    assert_eq!(layer.open(big, true, false).unwrap_err(), Errno::NOSPC);
    assert_eq!((layer.room.left(), fs::read(dir.path().join("big")).unwrap()), (50, vec![1; 60]));
    // Truncating copies nothing; a hole counts as if it were written.
    let truncated = layer.open(big, true, true).unwrap();
    assert_eq!(truncated.write_at(b"x", Some(50)).unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    truncated.write_at(b"x", Some(49)).unwrap();
    assert_eq!(layer.room.left(), 0);
    assert!(truncated.set_len(51).is_err());
    truncated.set_len(10).unwrap();
    assert_eq!(layer.room.left(), 40);
    // An open file without a name holds its bytes until it is closed.
    layer.unlink(root, "new").unwrap();
    assert_eq!(layer.room.left(), 40);
    drop(content);
    assert_eq!(layer.room.left(), 90);
    drop(truncated);
    layer.unlink(root, "big").unwrap();
    assert_eq!(layer.room.left(), 100);
}

#[test]
fn an_append_goes_to_the_end_whatever_another_handle_did() {
    let dir = below();
    fs::write(dir.path().join("log"), "one ").unwrap();
    let mut layer = over(&dir, 100);
    let id = find(&mut layer, "log").unwrap().unwrap();
    let reader = layer.open(id, false, false).unwrap();
    let writer = layer.open(id, true, false).unwrap();
    writer.write_at(b"two ", None).unwrap();
    layer.open(id, true, false).unwrap().write_at(b"three", None).unwrap();
    let mut buffer = [0; 20];
    let count = reader.read_at(&mut buffer, 0).unwrap();
    assert_eq!(&buffer[..count], b"one two three");
    assert_eq!(fs::read(dir.path().join("log")).unwrap(), b"one ");
}

#[test]
fn the_report_is_the_difference_and_nothing_else() {
    let dir = below();
    fs::create_dir_all(dir.path().join("tree/deep")).unwrap();
    for name in ["keep", "edit", "gone", "old", "tree/x", "tree/deep/y", "back"] {
        fs::write(dir.path().join(name), "1234").unwrap();
    }
    let mut layer = over(&dir, 100);
    let root = layer.root(0).unwrap();
    let edit = find(&mut layer, "edit").unwrap().unwrap();
    layer.open(edit, true, false).unwrap().write_at(b"longer", Some(0)).unwrap();
    layer.unlink(root, "gone").unwrap();
    layer.rename((root, "old"), (root, "new")).unwrap();
    layer.rename((root, "tree"), (root, "moved")).unwrap();
    let made = layer.create_directory(root, "made").unwrap();
    layer.create_file(made, "empty").unwrap();
    // What was moved there and back, and what was made and removed, is no change.
    layer.rename((root, "back"), (root, "away")).unwrap();
    layer.rename((root, "away"), (root, "back")).unwrap();
    layer.create_file(root, "short-lived").unwrap();
    layer.unlink(root, "short-lived").unwrap();
    let deep = find(&mut layer, "moved/deep").unwrap().unwrap();
    layer.unlink(deep, "y").unwrap();
    assert_eq!(text(&mut layer, "moved/x"), "1234");
    let expected = [
        (ChangeKind::Written, "edit", 6),
        (ChangeKind::Removed, "gone", 4),
        (ChangeKind::Made, "made", 0),
        (ChangeKind::Written, "made/empty", 0),
        (ChangeKind::Moved, "moved", 0),
        (ChangeKind::Moved, "new", 4),
        (ChangeKind::Removed, "old", 4),
        (ChangeKind::Removed, "tree", 0),
        (ChangeKind::Removed, "tree/deep/y", 4),
    ];
    assert_eq!(changes(&layer), expected.map(|(kind, path, bytes)| (kind, path.to_owned(), bytes)));
}

#[test]
fn what_others_do_below_shows_until_the_call_changed_it() {
    let dir = below();
    let file = |name: &str| dir.path().join(name);
    for name in ["seen", "mine"] {
        fs::write(file(name), "1").unwrap();
    }
    let mut layer = over(&dir, 100);
    let mine = find(&mut layer, "mine").unwrap().unwrap();
    layer.open(mine, true, true).unwrap().write_at(b"mine", Some(0)).unwrap();
    let before = find(&mut layer, "seen").unwrap();
    fs::write(file("new"), "new").unwrap();
    fs::write(file("swap"), "2").unwrap();
    fs::rename(file("swap"), file("seen")).unwrap();
    fs::write(file("mine"), "theirs").unwrap();
    assert_eq!((text(&mut layer, "new"), text(&mut layer, "seen")), ("new".to_owned(), "2".to_owned()));
    assert_ne!(find(&mut layer, "seen").unwrap(), before);
    assert_eq!(text(&mut layer, "mine"), "mine");
    fs::remove_file(file("seen")).unwrap();
    fs::remove_file(file("mine")).unwrap();
    assert_eq!(find(&mut layer, "seen").unwrap(), None);
    assert_eq!(text(&mut layer, "mine"), "mine");
}

#[test]
fn a_link_that_takes_the_place_of_a_directory_is_not_walked_through() {
    let (dir, outside) = (below(), below());
    fs::create_dir_all(dir.path().join("a/b")).unwrap();
    fs::write(outside.path().join("secret"), "key").unwrap();
    let mut layer = over(&dir, 100);
    let b = find(&mut layer, "a/b").unwrap().unwrap();
    fs::remove_dir_all(dir.path().join("a/b")).unwrap();
    symlink(outside.path(), dir.path().join("a/b")).unwrap();
    assert_eq!(layer.lookup(b, "secret"), Ok(None));
    assert_eq!(layer.list(b), Ok(Vec::new()));
    assert_eq!(find(&mut layer, "a/b/secret"), Err(Errno::PERM));
    symlink("../..", dir.path().join("a/up")).unwrap();
    assert_eq!(find(&mut layer, "a/up/etc"), Err(Errno::PERM));
    symlink("loop", dir.path().join("loop")).unwrap();
    assert_eq!(find(&mut layer, "loop"), Err(Errno::LOOP));
}

#[test]
fn pipes_and_devices_are_seen_and_never_opened() {
    let dir = below();
    assert!(Command::new("mkfifo").arg(dir.path().join("pipe")).status().unwrap().success());
    let mut layer = over(&dir, 100);
    let root = layer.root(0).unwrap();
    let pipe = find(&mut layer, "pipe").unwrap().unwrap();
    assert_eq!(layer.kind(pipe), Ok(FileType::Fifo));
    assert!(layer.open(pipe, false, false).is_err());
    // A file that becomes a pipe between the look and the opening does not block the thread.
    fs::write(dir.path().join("file"), "x").unwrap();
    let file = find(&mut layer, "file").unwrap().unwrap();
    fs::remove_file(dir.path().join("file")).unwrap();
    assert!(Command::new("mkfifo").arg(dir.path().join("file")).status().unwrap().success());
    assert_eq!(layer.open(file, false, false).unwrap_err(), Errno::NOENT);
    layer.unlink(root, "pipe").unwrap();
    assert!(dir.path().join("pipe").exists());
}

#[test]
fn what_the_process_could_not_do_for_real_it_cannot_do_here() {
    if rustix::process::geteuid().is_root() {
        // Root may change everything, so there is nothing to refuse.
        return;
    }
    let dir = below();
    fs::create_dir(dir.path().join("closed")).unwrap();
    fs::write(dir.path().join("closed/file"), "x").unwrap();
    let set = |name: &str, mode| {
        fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    set("closed/file", 0o444);
    set("closed", 0o555);
    let mut layer = over(&dir, 100);
    let closed = find(&mut layer, "closed").unwrap().unwrap();
    assert_eq!(layer.create_file(closed, "new"), Err(Errno::ACCESS));
    assert_eq!(layer.unlink(closed, "file"), Err(Errno::ACCESS));
    let file = find(&mut layer, "closed/file").unwrap().unwrap();
    assert_eq!(layer.open(file, true, true).unwrap_err(), Errno::ACCESS);
    set("closed", 0o755);
}

#[test]
fn trees_are_one_layer_and_names_have_a_length() {
    let (a, b) = (below(), below());
    fs::write(a.path().join("x"), "from a").unwrap();
    let mut layer = Layer::over(&[a.path(), b.path()], 100).unwrap();
    let (from, to) = (layer.root(0).unwrap(), layer.root(1).unwrap());
    layer.rename((from, "x"), (to, "y")).unwrap();
    let y = layer.lookup(to, "y").unwrap().unwrap();
    assert_eq!(layer.place(y), Some((1, "y".to_owned())));
    assert_eq!(layer.stat(y).unwrap().size, 6);
    assert!(a.path().join("x").exists() && !b.path().join("y").exists());
    let long = "n".repeat(MAX_NAME_BYTES + 1);
    assert_eq!(layer.create_file(to, &long), Err(Errno::NAMETOOLONG));
    assert_eq!(layer.rename((to, "y"), (to, &long)), Err(Errno::NAMETOOLONG));
}

#[test]
fn the_shelf_is_private_and_goes_with_the_layer() {
    let dir = below();
    let mut layer = over(&dir, 100);
    let root = layer.root(0).unwrap();
    layer.create_file(root, "x").unwrap();
    let shelf = layer.empty_directory().parent().map(Path::to_owned).unwrap();
    assert_eq!(fs::metadata(&shelf).unwrap().permissions().mode() & 0o777, 0o700);
    drop(layer);
    assert!(!shelf.exists());
}

#[test]
fn a_tree_of_any_size_costs_what_is_looked_at() {
    let dir = below();
    for outer in 0..40 {
        fs::create_dir(dir.path().join(outer.to_string())).unwrap();
        for inner in 0..50 {
            fs::write(dir.path().join(format!("{outer}/{inner}")), [0; 100]).unwrap();
        }
    }
    // Two hundred times the room is below.
    let mut layer = over(&dir, 1000);
    let id = find(&mut layer, "7/7").unwrap().unwrap();
    layer.open(id, true, false).unwrap().write_at(b"x", None).unwrap();
    assert_eq!(layer.list(layer.root(0).unwrap()).unwrap().len(), 40);
    assert_eq!((layer.room.left(), layer.nodes.len()), (899, 3));
}
