# Runs some of a project's tests with the project's own command: MODE TOOL COMMAND...
#
# MODE is `only` (the tests in `list`; with pytest, which has `list` as below, those that are not in `passed`) or `shard` (those of shard $KILN_SHARD of $KILN_SHARDS: `list` has the shards of those that are
# known, one a line, and the others are dealt out in turn). Without its tests, the command is not run.
set -u
mode=$1 tool=$2
shift 2
list=$KILN_TESTS/list
tab='	'
newline='
'

# Of the tests on standard input, those of this shard.
mine() {
  awk -v shard="${KILN_SHARD:-1}" -v shards="${KILN_SHARDS:-1}" '
    BEGIN {
      list = ENVIRON["KILN_TESTS"] "/list"
      while ((getline line < list) > 0) {
        at = index(line, "\t")
        known[substr(line, at + 1)] = substr(line, 1, at - 1)
      }
    }
    seen[$0]++ { next }
    ($0 in known) && known[$0] <= shards { if (known[$0] == shard) print; next }
    { if (turn++ % shards + 1 == shard) print }'
}

# Of numbered tests on standard input, the numbers of those in a file.
numbers() {
  awk -F "$tab" -v list="$1" '
    BEGIN { while ((getline line < list) > 0) wanted[line] }
    $2 in wanted { printf ",%s", $1 }'
}

none() {
  echo "kiln: none of these tests are in this part" >&2
  exit 0
}

# The expression of cargo-nextest for this shard's tests: those that it was given. The first has what was given to no other. Nothing, in all shards
# alike, if there is no list, or the expressions could be too long for one argument.
expression() {
  awk -F "$tab" -v shard="${KILN_SHARD:-1}" -v shards="${KILN_SHARDS:-1}" '
    { bytes += 2 * length($2) }
    $1 <= shards && (shard == 1) != ($1 == shard) {
      at = index($2, " ")
      program = substr($2, 1, at - 1)
      if (!(program in tests)) order[++programs] = program
      tests[program] = tests[program] (tests[program] == "" ? "" : "|") "test(=" substr($2, at + 1) ")"
    }
    END {
      if (NR == 0 || bytes > 96 * 1024) exit
      for (i = 1; i <= programs; i++)
        all = all (i == 1 ? "" : "|") "(binary_id(=" order[i] ")&(" tests[order[i]] "))"
      if (all == "") all = "none()"
      print shard == 1 ? "not(" all ")" : all
    }' "$list"
}

# Each line of standard input as one more argument of the command.
with_lines() {
  while IFS= read -r line; do set -- "$@" "$line"; done <"$lines"
  "$@"
}

lines=$(mktemp) || exit
trap 'rm -f "$lines" "$lines.all" "$lines.some"' EXIT

case $tool in
pytest)
  export PYTEST_ADDOPTS="${PYTEST_ADDOPTS:-} -p kiln_tests" PYTHONPATH="$KILN_TESTS${PYTHONPATH:+:$PYTHONPATH}" KILN_TESTS_MODE="$mode"
  "$@"
  exit
  ;;
unittest)
  # The module that stands for it is beside this.
  export PYTHONPATH="$KILN_TESTS${PYTHONPATH:+:$PYTHONPATH}" KILN_TESTS_MODE="$mode"
  count=$#
  last=
  placed=
  while [ "$count" -gt 0 ]; do
    word=$1
    shift
    if [ "$last" = -m ] && [ "$word" = unittest ] && [ -z "$placed" ]; then
      word=kiln_unittest
      placed=1
    fi
    set -- "$@" "$word"
    last=$word
    count=$((count - 1))
  done
  "$@"
  exit
  ;;
node)
  # Before the files, which may be followed by what is theirs.
  command=$1
  shift
  if [ "$mode" = shard ]; then
    "$command" --test-shard="$KILN_SHARD/$KILN_SHARDS" "$@"
  else
    "$command" "$@"
  fi
  exit
  ;;
jest | vitest)
  if [ "$mode" = shard ]; then
    if [ "$tool" = jest ] && [ -s "$list" ]; then set -- "$@" --testSequencer="$KILN_TESTS/sequencer.cjs"; fi
    "$@" --passWithNoTests --shard="$KILN_SHARD/$KILN_SHARDS"
  else
    "$@" --passWithNoTests --testNamePattern="$(cat "$KILN_TESTS/pattern")"
  fi
  exit
  ;;
nextest)
  # A filter of the command's own would be one more to choose from.
  own=
  for word in "$@"; do
    case $word in
    --) break ;;
    -E* | --filterset* | --filter-expr*) own=1 ;;
    esac
  done
  chosen=
  [ -n "$own" ] || chosen=$(expression)
  if [ -n "$chosen" ]; then
    option=-E
  else
    option=--partition chosen="count:$KILN_SHARD/$KILN_SHARDS"
  fi
  # Before what goes to the test programs.
  count=$#
  placed=
  while [ "$count" -gt 0 ]; do
    if [ "$1" = -- ] && [ -z "$placed" ]; then
      set -- "$@" "$option" "$chosen"
      placed=1
    fi
    set -- "$@" "$1"
    shift
    count=$((count - 1))
  done
  [ -n "$placed" ] || set -- "$@" "$option" "$chosen"
  NEXTEST_NO_TESTS=${NEXTEST_NO_TESTS:-pass} "$@"
  exit
  ;;
cargo)
  separator=--
  for word in "$@"; do [ "$word" != -- ] || separator=; done
  if [ "$mode" = only ]; then
    cp "$list" "$lines"
    with_lines "$@" $separator --exact
    exit
  fi
  # If they cannot be listed, the command says why.
  if ! "$@" $separator --list --format terse >"$lines.all" 2>/dev/null; then
    "$@"
    exit
  fi
  # rustdoc takes no names with blanks: tests of documentation are the first shard's.
  sed -n 's/: test$//p' "$lines.all" | grep -v ' ' | mine >"$lines"
  code=0
  if [ -s "$lines" ]; then
    with_lines "$@" $separator --exact || code=$?
  fi
  if [ "$KILN_SHARD" = 1 ] && sed -n 's/: test$//p' "$lines.all" | grep -q ' '; then
    count=$#
    placed=
    while [ "$count" -gt 0 ]; do
      if [ "$1" = -- ] && [ -z "$placed" ]; then
        set -- "$@" --doc
        placed=1
      fi
      set -- "$@" "$1"
      shift
      count=$((count - 1))
    done
    [ -n "$placed" ] || set -- "$@" --doc
    "$@" || code=$?
  elif [ ! -s "$lines" ]; then
    none
  fi
  exit "$code"
  ;;
ctest)
  # By number: a pattern of names would have to be quoted.
  "$@" -N >"$lines.all" || { "$@"; exit; }
  sed -n "s/^ *Test *#\([0-9][0-9]*\): \(.*\)\$/\1$tab\2/p" "$lines.all" >"$lines"
  if [ "$mode" = only ]; then
    numbers=$(numbers "$list" <"$lines")
  else
    cut -f2- "$lines" | mine >"$lines.all"
    numbers=$(numbers "$lines.all" <"$lines")
  fi
  [ -n "$numbers" ] || none
  "$@" -I "0,0,0$numbers"
  exit
  ;;
go)
  # The patterns of packages among the arguments are replaced by those packages that are meant.
  shift 2
  patterns=
  count=$#
  value=
  rest=
  while [ "$count" -gt 0 ]; do
    word=$1
    shift
    count=$((count - 1))
    if [ -n "$rest" ] || [ -n "$value" ]; then
      set -- "$@" "$word"
      value=
      continue
    fi
    case $word in
    -args | --args)
      # Behind this, all are the test programs' own.
      break
      ;;
    -*=* | -v | -race | -short | -json | -cover | -failfast | -a | -n | -x | -i | -work | -msan | -asan | -trimpath | -benchmem | -fullpath | -modcacherw | -linkshared | -c)
      set -- "$@" "$word"
      ;;
    -*)
      set -- "$@" "$word"
      value=1
      ;;
    *)
      patterns="$patterns$word$newline"
      ;;
    esac
  done
  args=
  if [ "${word:-}" = -args ] || [ "${word:-}" = --args ]; then args=1; fi
  # What is left in front is behind `-args`: turned behind the flags again below.
  kept=$count
  printf '%s' "${patterns:-.$newline}" >"$lines"
  (set -- go list; with_lines "$@") >"$lines.all" || exit
  if [ "$mode" = only ]; then
    cut -f1 "$list" | sort -u >"$lines"
    grep -Fxf "$lines" "$lines.all" >"$lines.some"
    mv "$lines.some" "$lines"
    names=$(cut -f2 "$list" | sort -u | paste -s -d '|' -)
    set -- "$@" -run "^($names)\$"
  else
    mine <"$lines.all" >"$lines"
  fi
  [ -s "$lines" ] || none
  while IFS= read -r package; do set -- "$@" "$package"; done <"$lines"
  if [ -n "$args" ]; then
    set -- "$@" -args
    while [ "$kept" -gt 0 ]; do
      set -- "$@" "$1"
      shift
      kept=$((kept - 1))
    done
  fi
  go test "$@"
  exit
  ;;
esac
