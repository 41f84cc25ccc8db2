# Writes the specifications of the tree's own gems without what they read from other files, so that gems can be
# installed where the sources are not. The gems that are named first, up to `--`, lose their version.

require "fileutils"

bare = ARGV.shift(ARGV.index("--"))
ARGV.shift

def line(call, *values)
  "  s.#{call} #{values.map(&:inspect).join(", ")}\n"
end

ARGV.each do |path|
  spec = Dir.chdir(File.dirname(path)) { Gem::Specification.load(File.basename(path)) }
  abort "kiln: `#{path}` cannot be read as a gem's specification" unless spec

  text = +"Gem::Specification.new do |s|\n"
  text << line("name =", spec.name)
  text << line("version =", bare.include?(spec.name) ? "0.0.0" : spec.version.to_s)
  text << line("summary =", spec.name)
  text << line("authors =", [spec.name])
  text << line("platform =", spec.platform.to_s)
  text << line("bindir =", spec.bindir)
  text << line("executables =", spec.executables)
  text << line("required_ruby_version =", spec.required_ruby_version.as_list)
  spec.dependencies.each do |needed|
    wanted = bare.include?(needed.name) ? [] : needed.requirement.as_list
    text << line("add_#{needed.type}_dependency", needed.name, *wanted)
  end
  target = File.join(".kiln/specs", path)
  FileUtils.mkdir_p(File.dirname(target))
  File.write(target, text << "end\n")
end
