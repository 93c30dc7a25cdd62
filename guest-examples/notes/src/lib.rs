//! Notes as files, with nothing but `std::fs`: the tool does not know that it is governed.

use std::{fs, io};

// `read` and `remove` are also C functions that std calls. Without the prefix the linker would take ours for libc's;
// `cm32p2||` is the component model's own spelling of an export, which no C symbol has.
wit_bindgen::generate!({ path: "wit", export_prefix: "cm32p2||" });

struct Notes;

export!(Notes);

impl Guest for Notes {
    fn add(title: String, text: String) -> Result<(), String> {
        fs::write(path(&title), text).map_err(|error| describe(&title, &error))
    }

    fn read(title: String) -> Result<String, String> {
        fs::read_to_string(path(&title)).map_err(|error| describe(&title, &error))
    }

    fn titles() -> Result<Vec<String>, String> {
        let entries = fs::read_dir(FOLDER).map_err(|error| describe(FOLDER, &error))?;
        let mut titles = Vec::new();
        for entry in entries {
            let name = entry.map_err(|error| describe(FOLDER, &error))?.file_name();
            titles.extend(name.to_str().and_then(|name| name.strip_suffix(".txt")).map(str::to_owned));
        }
        titles.sort();
        Ok(titles)
    }

    fn remove(title: String) -> Result<(), String> {
        fs::remove_file(path(&title)).map_err(|error| describe(&title, &error))
    }
}

const FOLDER: &str = "/notes";

/// The title is NOT checked, on purpose: `../../etc/passwd` goes to the host as it is. A tool author forgets such a
/// check sooner or later, and the host has to hold when that happens.
fn path(title: &str) -> String {
    format!("{FOLDER}/{title}.txt")
}

fn describe(what: &str, error: &io::Error) -> String {
    format!("{what}: {error}")
}
