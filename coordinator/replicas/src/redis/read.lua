-- The entries of a stream from a position on: as many as fit into so many bytes, one at least.
-- KEYS: stream. ARGV: position, bytes, bytes of a seal. Returns ids and values in turn.
local from, left, seal = ARGV[1] .. '-0', tonumber(ARGV[2]), tonumber(ARGV[3])
local found = {}
while true do
  local page = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', 64)
  for _, entry in ipairs(page) do
    local value = entry[2][2]
    local bytes = #value - seal
    if bytes > left and #found > 0 then
      return found
    end
    left = left - bytes
    found[#found + 1] = entry[1]
    found[#found + 1] = value
  end
  if #page < 64 then
    return found
  end
  from = string.format('%.0f', tonumber(string.match(page[#page][1], '^%d+')) + 1) .. '-0'
end
