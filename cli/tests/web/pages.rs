//! The pages beside the builds: steps with what they saw and made, the farm, artifacts, and comparisons.

use kiln_harness::project;

use crate::world::{browse, curl, farm, has_browser};

#[test]
fn a_step_its_files_artifacts_comparisons_and_the_farm_are_shown_and_fit_a_narrow_screen() {
    if !has_browser() {
        return;
    }
    let (farm, pages) = farm(&["one"]);
    let text = "name = \"shop\"\nversion = \"1\"\n[steps.make]\nrun = \"mkdir -p out/deep; cp src/in.txt out/deep/made.txt; echo x > out/a\"\noutputs = [\"out\"]\n\
                env = { COLOUR = \"green\" }\n[steps.test]\nneeds = [\"make\"]\nrun = \"cat out/deep/made.txt\"\n\
                [artifacts.shop]\nfrom = \"make\"\nfiles = [\"out\"]\nkind = \"archive\"\n";
    let dir = project(&[("kiln.toml", text), ("src/in.txt", "<b>one</b>\n"), ("src/<img src=x>", "odd")]);
    assert_eq!(farm.kiln(&["build", dir.path().to_str().unwrap()]).code, 0);
    kiln_harness::write(dir.path(), "src/in.txt", "<b>two</b>\n");
    assert_eq!(farm.kiln(&["build", dir.path().to_str().unwrap()]).code, 0);
    browse("pages.cjs", &[&pages]);
    // A file is never shown, only kept, whatever its name or content says.
    let listed = curl(&[&format!("{pages}/api/v1/builds")]);
    let builds: serde_json::Value = serde_json::from_str(&listed.body).unwrap();
    let id = builds["builds"][0]["id"].as_str().unwrap();
    let file = curl(&[&format!("{pages}/builds/{id}/steps/1/inputs/src/in.txt")]);
    assert_eq!((file.status, file.body.as_str()), (200, "<b>two</b>\n"));
    assert_eq!(file.header("content-type"), Some("application/octet-stream"));
    assert_eq!(file.header("content-disposition"), Some("attachment; filename=\"in.txt\""));
    let made = curl(&[&format!("{pages}/builds/{id}/steps/1/outputs/out/deep/made.txt")]);
    assert_eq!((made.status, made.body.as_str()), (200, "<b>two</b>\n"));
    for path in [
        "steps/1/inputs/none",
        "steps/1/inputs/../../etc/passwd",
        "steps/9",
        "steps/0",
        "steps/1/outputs/out/deep/made.txt/x",
    ] {
        let status = curl(&["--path-as-is", &format!("{pages}/builds/{id}/{path}")]).status;
        assert_eq!(status, 404, "for `{path}`");
    }
    assert_eq!(curl(&[&format!("{pages}/artifacts/none")]).status, 404);
}

#[test]
fn a_log_of_a_hundred_megabytes_is_read_in_ranges() {
    if !has_browser() {
        return;
    }
    let (farm, pages) = farm(&["one"]);
    let text = "name = \"long\"\nversion = \"1\"\n[steps.talk]\nrun = \"yes 'a line of a very long log that goes on and on, a hundred bytes in all, more or less, as logs do....' | head -n 1000000; echo the end\"\n";
    let dir = project(&[("kiln.toml", text)]);
    assert_eq!(farm.kiln(&["build", dir.path().to_str().unwrap()]).code, 0);
    browse("long.cjs", &[&pages]);
}
