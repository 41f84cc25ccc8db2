// Gives each test file to a shard of Jest as the list beside this says, and others in turn: see `run.sh`.

const fs = require('fs');
const path = require('path');

const root = path.resolve(__dirname, '../..');

module.exports = class {
  shard(tests, { shardIndex, shardCount }) {
    const lines = fs.readFileSync(path.join(__dirname, 'list'), 'utf8').split('\n').filter(Boolean);
    const known = new Map(lines.map((line) => [line.slice(line.indexOf('\t') + 1), parseInt(line, 10)]));
    const name = (test) => path.relative(root, fs.realpathSync(test.path));
    const sorted = [...tests].sort((one, other) => (one.path < other.path ? -1 : one.path > other.path ? 1 : 0));
    let turn = 0;
    return sorted.filter((test) => {
      const shard = known.get(name(test));
      return (shard >= 1 && shard <= shardCount ? shard : (turn++ % shardCount) + 1) === shardIndex;
    });
  }

  // The longest first, as far as their size says.
  sort(tests) {
    const size = new Map(tests.map((test) => [test, fs.statSync(test.path).size]));
    return [...tests].sort((one, other) => size.get(other) - size.get(one));
  }

  allFailedTests(tests) {
    return tests;
  }

  cacheResults() {}
};
