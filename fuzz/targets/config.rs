//! The configuration: any text of a file, any value of a variable or flag. It is valid, or an error with a
//! text; what is valid can be shown.
#![no_main]

use server::config::{Loaded, Sources};
use std::path::Path;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let (file, words) = text.split_once('\0').unwrap_or((&text, ""));
    let pairs = || words.lines().filter_map(|line| line.split_once('='));
    let sources = Sources {
        file: None,
        variables: pairs().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        flags: pairs()
            .filter(|(name, _)| name.starts_with("--"))
            .map(|(name, value)| (name.to_owned(), name[2..].to_owned(), value.to_owned()))
            .collect(),
    };
    let path = Path::new("archipel.toml");
    match Loaded::layered(Some((path, file)), &sources) {
        Ok(loaded) => {
            for key in loaded.origins.keys() {
                assert!(!loaded.origin(key).to_string().is_empty());
            }
            let again = Loaded::layered(Some((path, file)), &sources).expect("the same text is valid again");
            assert_eq!(format!("{:?}", again.config), format!("{:?}", loaded.config));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
