# frozen_string_literal: true

# Says things louder.
module Shout
  def self.call(text) = "#{text.upcase}!"
end
