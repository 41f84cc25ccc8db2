//! Ruby projects whose `Gemfile` refers to gems in the tree and to other files.

use super::{planned, tree};
use crate::plan::{Source, input_files};

#[test]
fn gems_of_the_tree_are_described_by_a_step_of_their_own() {
    let lock = "PATH\n  remote: engines/pay\n  specs:\n    pay (0.7.0)\n\nGEM\n  remote: x\n  specs:\n    rack (3.0)\n\n\
                DEPENDENCIES\n  pay!\n  rack\n";
    let files = [
        ("Gemfile", "eval_gemfile File.join(__dir__, 'gemfiles', 'common.rb')\ngem 'pay', path: 'engines/pay'\n"),
        ("Gemfile.lock", lock),
        ("engines/pay/VERSION", "0.7.0\n"),
        ("engines/pay/lib/pay.rb", ""),
        ("engines/pay/pay.gemspec", "s.version = File.read(\"VERSION\")"),
        ("gemfiles/common.rb", "gem 'rack'\ninstance_eval File.read(\"#{__dir__}/extra\")\n"),
        ("gemfiles/extra", ""),
        ("other/other.gemspec", ""),
        ("vendor/cache/rack-3.0.gem", ""),
    ];
    let plan = planned(&files);
    let names: Vec<&str> = plan.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["specs", "deps", "bundle"]);
    assert_eq!(plan.steps[0].run, "ruby .kiln/specs.rb pay -- engines/pay/pay.gemspec\n");
    assert!(!plan.steps[0].network && plan.steps[0].inputs.is_empty());
    let source = tree(&files);
    let seen = input_files(&plan.steps[1], source.paths()).into_iter().map(|i| source.paths()[i].as_str());
    let expected = ["Gemfile", "Gemfile.lock", "gemfiles/common.rb", "gemfiles/extra", "vendor/cache/rack-3.0.gem"];
    assert_eq!(seen.collect::<Vec<_>>(), expected);
    assert!(plan.steps[1].run.starts_with("cp -a .kiln/specs/. .\nbundle install --local "), "{}", plan.steps[1].run);
    assert_eq!(plan.steps[2].needs, ["deps"]);
}

#[test]
fn a_cache_that_lacks_a_gem_is_read_and_the_rest_fetched() {
    let lock = "GEM\n  remote: x\n  specs:\n    rack (3.0)\n    rake (13.0)\n\nDEPENDENCIES\n  rack\n  rake\n";
    let plan = planned(&[("Gemfile", ""), ("Gemfile.lock", lock), ("vendor/cache/rack-3.0.gem", "")]);
    assert!(plan.steps[0].inputs.contains(&"vendor/cache".to_owned()));
    assert!(plan.steps[0].run.starts_with("bundle install --jobs"));
}
