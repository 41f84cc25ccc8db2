# frozen_string_literal: true

require_relative "lib/shout"

puts Shout.call(ARGV.fetch(0, "hello"))
