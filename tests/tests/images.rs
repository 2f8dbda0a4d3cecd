//! Images are made in two ways, with Docker and without: as whom, with what and what for they run is said in both.

use std::{fs, path::Path};

fn read(file: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::read_to_string(root.join(file)).expect(file)
}

#[test]
fn docker_and_buildah_make_the_same_images() {
    let dockerfile = read("images/Dockerfile");
    let script = read("images/build").replace('\\', "");
    let stages: Vec<(&str, &str)> = dockerfile
        .split("FROM scratch AS ")
        .skip(1)
        .map(|stage| stage.split_once('\n').expect("more than a name"))
        .collect();
    let roles: Vec<&str> = stages.iter().map(|(role, _)| *role).collect();
    assert_eq!(roles, ["orderer", "peer", "worker", "tools"]);
    for (role, stage) in stages {
        let script = script.replace("$role", role);
        let options: Vec<String> = stage
            .lines()
            .filter_map(|line| line.split_once(' '))
            .flat_map(|(word, rest)| match word {
                "USER" => vec![format!("--user {rest}")],
                "ENTRYPOINT" => vec![rest.to_owned()],
                "ENV" => rest.split(' ').map(|variable| format!("--env {variable}")).collect(),
                _ => Vec::new(),
            })
            .collect();
        assert!(options.len() >= 2, "{role} runs as somebody, and runs something");
        for option in options {
            assert!(script.contains(&option), "images/build makes {role} without {option}");
        }
        // The rest of both is made by one script.
        assert!(stage.contains(&format!("--from=build /rootfs/{role} /")), "{role}");
    }
    assert!(dockerfile.contains("images/rootfs /target/release/medledger-$role /rootfs/$role"));
}
