//! Runs the functions of the fuzz targets on their corpus and on random bytes.

use std::path::Path;

use proptest::prelude::*;

use crate::checks;

type Check = fn(&[u8]);

const CHECKS: [(&str, Check); 6] = [
    ("parser", checks::parser),
    ("submission", checks::submission),
    ("metadata", checks::metadata),
    ("cursor", checks::cursor),
    ("items", checks::items),
    ("answers", checks::answers),
];

#[test]
fn every_file_of_the_corpora_passes() {
    for (name, check) in CHECKS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/corpus")
            .join(name);
        let mut count = 0;
        for file in std::fs::read_dir(&folder).unwrap() {
            check(&std::fs::read(file.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 5, "{name} has {count} files");
    }
}

proptest! {
    #[test]
    fn random_bytes_pass(data in proptest::collection::vec(any::<u8>(), 0..400)) {
        for (_, check) in CHECKS {
            check(&data);
        }
    }
}
