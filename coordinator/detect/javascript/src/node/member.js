// Puts one member of a workspace into the root of an archive.
//
// member.js keep DIRECTORY   puts the installed packages that the member in DIRECTORY needs when it runs below
//                            .workspace, each at its place in the workspace
// member.js link DIRECTORY   links them into the archive's node_modules, as the member finds them in the workspace
//
// A link leads to where a package lies in the workspace, so Node looks there for what that package needs in turn.
'use strict';
const fs = require('fs');
const path = require('path');

const root = process.cwd();
const out = path.join(root, '.kiln/out');
const inside = path.join(out, '.workspace');
const [action, directory] = process.argv.slice(2);
const member = path.join(root, directory);
// What package managers keep for themselves.
const PRIVATE = /^\.(bin|bun|cache|ignored.*|modules\.yaml|package-lock\.json|pnpm.*|store|temp|tmp|vite.*|yarn-.*)$/;

function manifest(at) {
  try {
    return JSON.parse(fs.readFileSync(path.join(at, 'package.json'), 'utf8'));
  } catch (error) {
    return {};
  }
}

function list(at) {
  return fs.existsSync(at) ? fs.readdirSync(at).sort() : [];
}

/** What a package needs when it runs: name, and whether it can do without. */
function needs(package_) {
  const optional = package_.optionalDependencies || {};
  const peers = package_.peerDependencies || {};
  const may = package_.peerDependenciesMeta || {};
  const bundled = package_.bundledDependencies || package_.bundleDependencies;
  const names = new Map();
  Object.keys(peers).filter((name) => !(may[name] || {}).optional).forEach((name) => names.set(name, true));
  (Array.isArray(bundled) ? bundled : []).forEach((name) => names.set(name, true));
  Object.keys(package_.dependencies || {}).forEach((name) => names.set(name, name in optional));
  Object.keys(optional).forEach((name) => names.set(name, true));
  return names;
}

/** The directories of packages that Node looks into for a file in `from`, the nearest first. */
function modulesOf(from) {
  const found = [];
  for (let at = from; at === root || at.startsWith(root + path.sep); at = path.dirname(at)) {
    if (path.basename(at) !== 'node_modules') found.push(path.join(at, 'node_modules'));
  }
  return found;
}

function commands(package_, name) {
  if (typeof package_.bin === 'string') return [name.replace(/^@[^/]*\//, '')];
  return Object.keys(package_.bin || {});
}

const isInstalled = (real) => path.relative(root, real).split(path.sep).includes('node_modules');
const moved = (at) => (at === member ? out : path.join(inside, path.relative(root, at)));

/** Copies a file, a link or a directory; `packages` says whether a directory's own `node_modules` goes along. */
function copy(from, packages) {
  const to = moved(from);
  const what = fs.lstatSync(from);
  fs.mkdirSync(path.dirname(to), { recursive: true });
  if (what.isSymbolicLink()) {
    if (fs.existsSync(to)) return;
    const said = fs.readlinkSync(from);
    const target = path.resolve(path.dirname(from), said);
    const within = target === root || target.startsWith(root + path.sep);
    fs.symlinkSync(within ? path.relative(path.dirname(to), moved(target)) : said, to);
  } else if (what.isDirectory()) {
    fs.mkdirSync(to, { recursive: true });
    for (const name of list(from)) {
      if (packages || name !== 'node_modules') copy(path.join(from, name), true);
    }
  } else {
    fs.copyFileSync(from, to);
  }
}

/** Links into the archive's `node_modules` what lies in a directory of packages. */
function link(from, to) {
  for (const name of list(from).filter((one) => one === '.bin' || !PRIVATE.test(one))) {
    const [here, there] = [path.join(from, name), path.join(to, name)];
    if (name.startsWith('@') || name === '.bin') {
      link(here, there);
    } else if (!fs.existsSync(there)) {
      fs.mkdirSync(to, { recursive: true });
      fs.symlinkSync(path.relative(to, here), there);
    }
  }
}

function keep() {
  const open = [member];
  const seen = new Set(open);
  const kept = new Set();
  while (open.length > 0) {
    const at = open.pop();
    for (const [name, optional] of needs(manifest(at))) {
      const place = modulesOf(at).map((modules) => path.join(modules, name)).find((one) => fs.existsSync(one));
      if (!place) {
        if (!optional) console.error(`kiln: warning: ${path.relative(root, at)} needs ${name}, which is not installed`);
        continue;
      }
      const real = fs.realpathSync(place);
      kept.add(place);
      const modules = place.slice(0, -name.length);
      for (const command of commands(manifest(real), name)) {
        for (const bin of [path.join(modules, '.bin', command), path.join(at, 'node_modules/.bin', command)]) {
          if (fs.existsSync(bin)) kept.add(bin);
        }
      }
      // What install scripts left beside packages, as Prisma does.
      for (const other of list(modules)) {
        if (other.startsWith('.') && !PRIVATE.test(other)) kept.add(path.join(modules, other));
      }
      if (seen.has(real)) continue;
      seen.add(real);
      open.push(real);
    }
  }
  // pnpm and Bun have links here to what packages use without naming it.
  for (const hidden of ['.pnpm', '.bun'].map((store) => path.join(root, 'node_modules', store, 'node_modules'))) {
    const names = list(hidden).flatMap((name) => (name[0] === '@' ? list(path.join(hidden, name)).map((one) => `${name}/${one}`) : [name]));
    for (const place of names.map((name) => path.join(hidden, name))) {
      if (fs.existsSync(place) && seen.has(fs.realpathSync(place))) kept.add(place);
    }
  }
  for (const place of new Set([...kept, ...[...seen].filter(isInstalled)].sort())) copy(place, false);
}

if (action === 'keep') {
  keep();
} else {
  for (const modules of modulesOf(member)) link(moved(modules), path.join(out, 'node_modules'));
}
