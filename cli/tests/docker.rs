//! Steps and actions in containers, on a farm of real processes, a real engine and a real registry.

#![allow(clippy::unwrap_used)]

use std::sync::OnceLock;

use kiln_harness::engine::{BUSYBOX, Engine, FOREIGN};
use kiln_harness::guarded::{Guarded, access, certificate};
use kiln_harness::private_registry::PrivateRegistry;
use kiln_harness::remote::{Caller, caller_of, code, salt, shell};
use kiln_harness::{Built, Farm, Ran, project, until, write};
use kiln_proto::digest::DigestFunction;
use kiln_proto::reapi;
use tonic::Code;

/// A farm whose workers have Docker, and the registry that they pull from.
struct Place {
    farm: Farm,
    engine: &'static Engine,
    registry: PrivateRegistry,
}

fn variables<'a>(host: &'a str, config: &'a str) -> [(&'a str, &'a str); 2] {
    [("DOCKER_HOST", host), ("DOCKER_CONFIG", config)]
}

impl Place {
    fn start(workers: &[&str]) -> Option<Self> {
        let engine = kiln_harness::engine::shared()?;
        let registry = PrivateRegistry::start()?;
        let farm = Farm::start(&[]);
        let place = Self { farm, engine, registry };
        for name in workers {
            place.start_worker(name);
            place.farm.wait_for_worker(name);
        }
        Some(place)
    }

    fn start_worker(&self, name: &str) {
        let config = self.registry.right().display().to_string();
        self.farm.start_worker_in(&self.farm.url, name, &["--own-credentials"], &variables(&self.engine.host, &config));
    }

    /// For the tests that leave the farm unchanged.
    fn shared() -> Option<&'static Self> {
        static PLACE: OnceLock<Option<Place>> = OnceLock::new();
        PLACE.get_or_init(|| Self::start(&["one"])).as_ref()
    }
}

/// Steps run in containers, though the workers could run them in sandboxes.
const CONTAINERS: &[&str] = &["--executor", "docker"];

/// A project with one step in an image.
fn work(image: &str, run: &str, more: &str) -> tempfile::TempDir {
    let config = format!(
        "name = \"p\"\nversion = \"1\"\n[steps.work]\nimage = \"{image}\"\nrun = '''{run}'''\noutputs = [\"out\"]\n{more}\n\
         [artifacts.p]\nfrom = \"work\"\nfiles = [\"out\"]\nkind = \"archive\"\n"
    );
    project(&[("kiln.toml", &config), ("in", &salt())])
}

#[test]
fn a_step_runs_in_its_image_and_a_tag_that_moved_is_another_action() {
    let Some(place) = Place::shared() else { return };
    let tag = place.registry.push(place.engine, BUSYBOX, "moving:1");
    let dir = work(&tag, "cat in; echo $FROM_IMAGE; id -u; test -e /usr && exit 1; echo made > out", "");
    let first = place.farm.build(dir.path(), CONTAINERS).well();
    assert!(first.log().contains("yes\n1000\n"), "expected it to run in the image, not as root: {}", first.log());
    assert!(first.log().contains("kiln: pulled `127.0.0.1:"), "expected the pull to be reported: {}", first.log());
    let list = place.farm.kiln(&["cache", "list", "--json"]).out;
    assert!(list.contains("/moving@sha256:"), "expected the digest in place of the tag: {list}");
    assert_eq!(place.farm.build(dir.path(), CONTAINERS).well().caches()["work"], "hit");
    // The image now has one more label.
    place.engine.ok(&["rm", "--force", "kiln-test-label"]);
    place.engine.ok(&["create", "--name", "kiln-test-label", BUSYBOX, "true"]);
    place.engine.ok(&["commit", "--change", "LABEL more=1", "kiln-test-label", "kiln-test/moved:1"]);
    place.engine.ok(&["rm", "--force", "kiln-test-label"]);
    place.registry.push(place.engine, "kiln-test/moved:1", "moving:1");
    assert_eq!(
        place.farm.build(dir.path(), CONTAINERS).well().caches()["work"],
        "miss",
        "expected the digest to be in the key"
    );
}

#[test]
fn a_container_has_no_shell_and_who_asks_learns_what_to_do() {
    let Some(place) = Place::shared() else { return };
    let image = place.registry.push(place.engine, BUSYBOX, "shell:1");
    let built = place.farm.build(work(&image, "cat in; exit 3", "").path(), CONTAINERS);
    assert_eq!(built.0.code, 1, "{:?}", built.0);
    let ran = place.farm.kiln(&["run", &built.id(), "work", "--", "echo", "inside"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{ran:?}");
    assert!(["`--executor sandbox`", "`docker run`"].iter().all(|fix| ran.err.contains(fix)), "{ran:?}");
}

#[test]
fn a_second_run_in_a_container_has_other_cpus_and_another_host_name_and_leaves_no_container() {
    let Some(place) = Place::shared() else { return };
    let tag = place.registry.push(place.engine, BUSYBOX, "again:1");
    let arguments = [CONTAINERS, &["--verify-reproducible"]].concat();
    let second = |built: &Built, step: &str| {
        let events = built.of_type("step_again");
        let found = events.iter().find(|event| event["step"] == step && !event["result"].is_null());
        found.unwrap_or_else(|| panic!("{}", built.0.out))["result"].clone()
    };
    let plain = place.farm.build(work(&tag, "cat in > out", "").path(), &arguments).well();
    let step = second(&plain, "work");
    let varied: Vec<&str> = step["varied"].as_array().unwrap().iter().filter_map(|name| name.as_str()).collect();
    assert!(step["outcome"] == "same" && varied.contains(&"time") && varied.contains(&"host-name"), "{step}");
    assert!(varied.contains(&"cpus") || step["first"]["cpus"] == 1, "{step}");
    let built = place.farm.build(work(&tag, "hostname > out; nproc >> out", "").path(), &arguments);
    let step = second(&built, "work");
    let words = step["differences"].to_string();
    assert_eq!((built.0.code, &step["outcome"]), (1, &"different".into()), "{step}");
    assert!(words.contains("host name `kiln` against `kiln-"), "{words}");
    // A name that was made up for a run is no container's any more.
    until("the containers of second runs to be removed", || {
        let ids = place.engine.ok(&["ps", "--all", "--quiet"]);
        let inspect = [vec!["inspect", "--format", "{{.Config.Hostname}}"], ids.lines().collect()].concat();
        let names = String::from_utf8_lossy(&place.engine.docker(&inspect).stdout).into_owned();
        (!names.lines().any(|name| name.starts_with("kiln-"))).then_some(())
    });
}

#[test]
fn steps_in_debian_and_steps_on_the_worker_are_one_build() {
    let Some(place) = Place::shared() else { return };
    let Some(debian) = place.engine.debian() else { return };
    let image = place.registry.push(place.engine, debian, "debian:12");
    let config = format!(
        "name = \"p\"\nversion = \"1\"\n[steps.own]\ninputs = [\"in\"]\nrun = 'tr a-z A-Z < in > upper'\noutputs = [\"upper\"]\n\
         [steps.debian]\nimage = \"{image}\"\nneeds = [\"own\"]\ninputs = [\"lib/*\"]\ntools = [\"perl\"]\n\
         run = 'cat /etc/debian_version; mkdir -p d/e; perl -pe s/A/B/ upper > d/e/f; ln -s e/f d/link; chmod +x d/e/f; \
         cat lib/one > d/one; echo x >> lib/one'\noutputs = [\"d\"]\n\
         [steps.test]\nneeds = [\"debian\"]\ninputs = [\"lib/*\"]\nrun = 'test -x d/e/f; cat d/link lib/one'\n"
    );
    let input = format!("a {}\n", salt());
    let dir = project(&[("kiln.toml", &config), ("in", &input), ("lib/one", "one\n")]);
    let log = place.farm.build(dir.path(), CONTAINERS).well().log();
    assert!(log.contains("12."), "expected Debian's version: {log}");
    assert!(
        log.contains("B ") && log.ends_with("one\n"),
        "expected the steps' outputs, and the sources unchanged: {log}"
    );
    assert!(place.farm.build(dir.path(), CONTAINERS).well().caches().values().all(|cache| cache == "hit"));
}

#[test]
fn an_image_that_only_the_engine_holds_is_named_by_its_id() {
    let Some(place) = Place::shared() else { return };
    let dir = work(&format!("docker-daemon:{BUSYBOX}"), "cat in > out", "");
    place.farm.build(dir.path(), CONTAINERS).well();
    assert_eq!(place.farm.build(dir.path(), CONTAINERS).well().caches()["work"], "hit");
    let list = place.farm.kiln(&["cache", "list", "--json"]);
    assert!(list.out.contains(&place.engine.id(BUSYBOX)), "expected the id in the list of step results: {}", list.out);
}

#[test]
fn an_image_that_is_none_or_unknown_or_for_another_machine_is_the_projects_fault_and_is_told() {
    let Some(place) = Place::shared() else { return };
    let foreign = place.registry.push(place.engine, FOREIGN, "foreign:1");
    let absent = format!("{}/absent:1", place.registry.host);
    for (image, words) in [
        ("De bian", "invalid image name `De bian`"),
        (absent.as_str(), "there is no image"),
        (foreign.as_str(), "is not for linux/"),
    ] {
        let built = place.farm.build(work(image, "true", "").path(), CONTAINERS);
        assert_eq!(built.0.code, 1, "expected `{image}` to be the project's fault: {}", built.message());
        let message = built.message();
        assert!(message.contains("step `work`") && message.contains(words), "expected `{words}` in: {message}");
    }
}

#[test]
fn wrong_credentials_are_the_farms_fault_and_say_what_to_do() {
    let Some(place) = Place::start(&[]) else { return };
    let image = place.registry.push(place.engine, BUSYBOX, "private:1");
    let config = place.registry.wrong().display().to_string();
    place.farm.start_worker_in(&place.farm.url, "one", &["--own-credentials"], &variables(&place.engine.host, &config));
    place.farm.wait_for_worker("one");
    let dir = work(&image, "echo x > out", "");
    let built = place.farm.build(dir.path(), CONTAINERS);
    assert_eq!(built.0.code, 3, "expected the farm's fault: {}", built.message());
    let words = format!("docker login {}", place.registry.host);
    assert!(built.message().contains(&words), "expected `{words}` in: {}", built.message());
    // If another worker has the right ones, it is used.
    place.start_worker("two");
    place.farm.wait_for_worker("two");
    place.farm.build(dir.path(), CONTAINERS).well();
}

#[test]
fn without_docker_anywhere_the_answer_comes_at_once_and_says_so() {
    let farm = Farm::start(&[]);
    let nowhere = format!("unix://{}/none.sock", farm.dir.path().display());
    farm.start_worker_in(&farm.url, "bare", &[], &[("DOCKER_HOST", &nowhere)]);
    farm.wait_for_worker("bare");
    for image in ["debian:12", &format!("debian@sha256:{}", "0".repeat(64))] {
        let built = farm.build(work(image, "true", "").path(), CONTAINERS);
        assert_eq!(built.0.code, 3, "{}", built.message());
        let message = built.message();
        assert!(message.contains("worker `bare` has kiln.executor=root,sandbox"), "{message}");
        assert!(message.contains("--docker required"), "expected a hint in: {message}");
    }
}

fn in_image(image: &str) -> impl FnOnce(&mut reapi::Action) {
    let property = reapi::platform::Property { name: "container-image".to_owned(), value: image.to_owned() };
    move |action| action.platform = Some(reapi::Platform { properties: vec![property] })
}

async fn caller(place: &Place) -> Caller {
    caller_of(&place.farm.url, DigestFunction::Sha256).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_property_container_image_runs_an_action_in_that_image() {
    let Some(place) = tokio::task::spawn_blocking(Place::shared).await.unwrap() else { return };
    let tag = place.registry.push(place.engine, BUSYBOX, "property:1");
    let id = place.engine.id(BUSYBOX);
    let caller = caller(place).await;
    for image in [format!("docker://{tag}"), tag.clone(), format!("docker-daemon:{id}")] {
        let command = shell("echo $FROM_IMAGE; cat in; mkdir -p d; echo out > d/file", &["d"]);
        let action = caller.action(command, &[("in", "input\n")], in_image(&image)).await;
        let response = caller.execute(&action).await;
        assert_eq!(code(&response), Code::Ok, "{image}: {:?}", response.status);
        let result = response.result.unwrap();
        assert_eq!(result.exit_code, 0);
        assert_eq!(caller.text(&result.stdout_digest).await, "yes\ninput\n");
        assert_eq!(result.output_directories[0].path, "d");
    }
    let refused = caller.action(shell("true", &[]), &[], in_image("docker://No Image")).await;
    let status = caller.start(&refused, false).await.expect_err("expected no operation for what names no image");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("`docker://No Image`"), "{}", status.message());
    let absent = format!("docker://{}/absent:1", place.registry.host);
    let action = caller.action(shell("true", &[]), &[], in_image(&absent)).await;
    let response = caller.execute(&action).await;
    assert_eq!(code(&response), Code::InvalidArgument, "{:?}", response.status);
}

#[test]
fn a_killed_workers_containers_are_gone_when_it_is_back_and_its_step_runs_to_its_end() {
    let Some(place) = Place::start(&["one"]) else { return };
    let id = || std::fs::read_to_string(place.farm.dir.path().join("one/docker/id")).unwrap();
    let containers = || place.engine.containers(&format!("kiln.state={}", id()));
    let dir = work(
        &format!("docker-daemon:{BUSYBOX}"),
        &format!("echo begun; test -e /build/in && sleep 2; echo done-{} > out", salt()),
        "",
    );
    let mut running = place.farm.start_build(dir.path(), CONTAINERS);
    running
        .until("its output", |event| event["type"] == "log" && event["text"].as_str().unwrap_or("").contains("begun"));
    let before = containers();
    assert_eq!(before.len(), 1, "expected the step's container");
    place.farm.kill_worker("one");
    place.start_worker("one");
    running.until("its end", |event| event["type"] == "build_finished" && event["status"] == "success");
    let left = containers();
    assert!(!left.contains(&before[0]), "expected the killed worker's container to be gone");
    assert!(left.len() <= 1, "expected at most the new one: {left:?}");
    write(dir.path(), "in", "other");
    place.farm.stop_worker("one");
    until("no container to be left by a worker that stops", || containers().is_empty().then_some(()));
}

#[test]
fn a_step_whose_engine_stops_in_mid_build_runs_elsewhere() {
    let Some(place) = Place::start(&[]) else { return };
    let Some(own) = Engine::start() else { return };
    let image = place.registry.push(place.engine, BUSYBOX, "elsewhere:1");
    let config = place.registry.right().display().to_string();
    place.farm.start_worker_in(&place.farm.url, "one", &["--own-credentials"], &variables(&own.host, &config));
    place.farm.wait_for_worker("one");
    let mark = salt();
    // It ends in another engine only, however long that takes to come.
    let here = format!("grep -q {} /proc/self/mountinfo", own.name());
    let run = format!("echo begun-{mark}; if {here}; then sleep 600; fi; echo x > out");
    let dir = work(&image, &run, "");
    let mut running = place.farm.start_build(dir.path(), CONTAINERS);
    running.until("its output", |event| {
        event["type"] == "log" && event["text"].as_str().unwrap_or("").contains(&format!("begun-{mark}"))
    });
    place.start_worker("two");
    place.farm.wait_for_worker("two");
    drop(own);
    let finished = running.until("the step's end", |event| event["type"] == "step_finished");
    assert_eq!((finished["ok"].as_bool(), finished["worker"].as_str()), (Some(true), Some("two")), "{finished}");
    running.until("its end", |event| event["type"] == "build_finished" && event["status"] == "success");
}

#[test]
fn docker_is_offered_while_the_engine_answers_and_from_the_time_when_it_first_does() {
    let (Some(first), Some(next)) = (Engine::start(), kiln_harness::engine::shared()) else { return };
    let farm = Farm::start(&[]);
    // Two engines in turn under one name.
    let socket = farm.dir.path().join("engine.sock");
    let host = format!("unix://{}", socket.display());
    let appears = |engine: &Engine| {
        let _ = std::fs::remove_file(&socket);
        std::os::unix::fs::symlink(engine.host.trim_start_matches("unix://"), &socket).unwrap();
    };
    let offers = |offered: bool| {
        until(&format!("the worker to say that it offers Docker: {offered}"), || {
            let workers = farm.workers();
            let docker = workers.first()?["environment"]["docker"].as_str()?;
            (docker.is_empty() != offered && workers[0]["state"] == "ready").then_some(())
        });
    };
    farm.start_worker_in(&farm.url, "one", &[], &[("DOCKER_HOST", &host)]);
    farm.wait_for_worker("one");
    offers(false);
    let image = format!("docker-daemon:{BUSYBOX}");
    let build = || farm.build(work(&image, "cat in > out", "").path(), CONTAINERS);
    appears(&first);
    offers(true);
    build().well();
    drop(first);
    offers(false);
    let refused = build();
    assert_eq!(refused.0.code, 3, "{}", refused.message());
    assert!(
        refused.message().contains("kiln.executor=root,sandbox"),
        "expected no worker to match: {}",
        refused.message()
    );
    let own = "[steps.own]\nrun = \"echo x > out\"\noutputs = [\"out\"]\ncache = false\n[artifacts.p]\nfrom = \"own\"\n\
               files = [\"out\"]\nkind = \"archive\"\n";
    farm.build(project(&[("kiln.toml", &format!("name = \"p\"\n{own}"))]).path(), &[]).well();
    appears(next);
    offers(true);
    build().well();
}

#[test]
fn a_step_in_a_container_has_its_secret_and_the_engine_and_the_output_show_nothing_of_it() {
    let Some(place) = Place::shared() else { return };
    let image = place.registry.push(place.engine, BUSYBOX, "secretive:1");
    let value = format!("tok-{}", uuid::Uuid::new_v4().simple());
    let run = format!("test ${{#TOKEN}} = {}; echo \"has $TOKEN.\"; sleep 1; echo made > out", value.len());
    let dir = work(&image, &run, "secrets = [\"TOKEN\"]");
    let mut command = place.farm.build_command(dir.path(), CONTAINERS);
    command.env("TOKEN", &value).env("KILN_SECRETS", "TOKEN");
    let mut running = kiln_harness::Running::start(command);
    running.until("the step's output", |event| event["text"].as_str().is_some_and(|text| text.contains("has ***.")));
    let containers = place.engine.ok(&["ps", "--quiet"]);
    for container in containers.split_whitespace() {
        assert!(
            !place.engine.ok(&["inspect", container]).contains(&value),
            "expected the engine not to know the secret"
        );
    }
    let built = running.end().well();
    assert!(!format!("{built:?}").contains(&value), "{built:?}");
    // The next command in the same container no longer has it.
    let after = place.farm.build(work(&image, "echo [$TOKEN]; echo made > out", "").path(), CONTAINERS).well();
    assert!(after.log().contains("[]\n"), "{}", after.log());
}

#[test]
fn an_image_is_pulled_with_the_credentials_of_its_tenant_and_opened_to_nobody_else_by_a_digest_or_an_id() {
    let (Some(engine), Some(registry)) = (kiln_harness::engine::shared(), PrivateRegistry::start()) else { return };
    // An image that only the registry has, and whose content is in no other image.
    let container = engine.ok(&["create", BUSYBOX, "true"]);
    engine.ok(&["commit", "--change", "ENV FROM_IMAGE=private", &container, "kiln-test/private:1"]);
    engine.ok(&["rm", &container]);
    let tag = registry.push(engine, "kiln-test/private:1", "private:1");
    let id = engine.id("kiln-test/private:1");
    engine.ok(&["rmi", "--force", &id]);
    let by_digest = registry.by_digest(engine, &tag);

    let dir = tempfile::tempdir().unwrap();
    let credentials = dir.path().join("credentials.toml");
    // The other tenant has credentials, too, but wrong ones.
    let of = |tenant: &str, config: std::path::PathBuf| {
        format!("[credentials.{tenant}]\ntenants = [\"{tenant}\"]\ndocker_config = {:?}\n", config.join("config.json"))
    };
    let text = of("shop", registry.right()) + &of("bank", registry.wrong());
    std::fs::write(&credentials, text).unwrap();
    let guarded = Guarded::start(&["--credentials", credentials.to_str().unwrap(), "--allow-registry", "127.0.0.0/8"]);
    // The login of the worker's user, which is for that user only.
    let config = registry.right().display().to_string();
    let variables = variables(&engine.host, &config);
    guarded.farm.start_worker_in(&guarded.farm.url, "one", &["--join", &guarded.join], &variables);
    guarded.farm.wait_for_worker("one");
    let build_in = |executor: &str, tenant: &str, image: &str| {
        let made = certificate(&guarded.dir(), tenant, &["--role", "builder", "--tenant", tenant]);
        let dir = work(image, "echo $FROM_IMAGE > out; echo has-$FROM_IMAGE", "");
        let mut command = guarded
            .as_other(access(&guarded.dir(), Some(&made)), &["build", "--progress", "json", "--executor", executor]);
        command.current_dir(dir.path());
        Built(Ran::from(command))
    };
    let build = |tenant: &str, image: &str| build_in("docker", tenant, image);
    let refused_in = |executor: &str, tenant: &str, image: &str| {
        let built = build_in(executor, tenant, image);
        let all = format!("{built:?}");
        assert!(built.0.code != 0 && !all.contains("has-private"), "expected {tenant} not to get `{image}`: {all}");
        built.message()
    };
    let refused = |tenant: &str, image: &str| refused_in("docker", tenant, image);
    let by_id = format!("docker-daemon:{id}");
    for tenant in ["bank", "other"] {
        let words = refused(tenant, &tag);
        assert!(words.contains("rejected the available credentials"), "expected the reason in: {words}");
        refused(tenant, &by_digest);
    }
    assert!(!engine.docker(&["image", "inspect", &by_digest]).status.success(), "expected nothing to be pulled");
    let shop = build("shop", &tag).well();
    assert!(shop.log().contains("has-private"), "{}", shop.log());
    // The same where the coordinator imports it.
    let shop = build_in("sandbox", "shop", &tag).well();
    assert!(shop.log().contains("has-private"), "{}", shop.log());
    for (tenant, words) in [("bank", "rejected the credentials"), ("other", "credentials")] {
        for image in [&tag, &by_digest] {
            let said = refused_in("sandbox", tenant, image);
            assert!(said.contains(words), "expected `{words}` in: {said}");
        }
    }
    // An id names no registry, so no credentials are sent; an authorised user names the image by its registry.
    let words = refused("shop", &by_id);
    assert!(words.contains("use that name"), "{words}");
    // Now the engine has it.
    for tenant in ["bank", "other"] {
        for image in [&tag, &by_digest, &by_id, &format!("docker-daemon:{tag}")] {
            refused(tenant, image);
        }
    }
    assert!(build("shop", &by_digest).well().log().contains("has-private"));
}
