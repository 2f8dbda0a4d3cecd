//! The trust matrix names files and tests that exist; what it promises is then theirs to keep.

use std::{fs, path::Path};

#[test]
fn everything_that_the_matrix_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = fs::read_to_string(root.join("docs/trust.md")).expect("docs/trust.md");
    let (mut files, mut tests) = (0, 0);
    // What stands between backquotes is every second piece.
    for name in text.split('`').skip(1).step_by(2).filter(|name| name.contains(".rs")) {
        let (file, test) = name
            .split_once("::")
            .map_or((name, None), |(file, test)| (file, Some(test)));
        let source = fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        files += 1;
        if let Some(test) = test {
            let at = source
                .find(&format!("fn {test}("))
                .unwrap_or_else(|| panic!("{file} has no {test}"));
            // The attribute stands between the test and whatever is before it.
            let attributes = source[..at].rsplit("\n\n").next().unwrap_or_default();
            let is_test = ["#[test]", "#[tokio::test"]
                .iter()
                .any(|word| attributes.contains(word));
            assert!(is_test, "{name} is no test");
            tests += 1;
        }
    }
    assert!(
        files > 20 && tests > 20,
        "the matrix was read: {files} files, {tests} tests"
    );
}
