-- Records of a space in the order of their keys: at most so many, and as many as fit into so many bytes, one at least.
-- KEYS: records, order. ARGV: 'up' or 'down', lowest and highest key as ZRANGEBYLEX takes them, how many, bytes.
-- Returns keys and values in turn.
local keys
if ARGV[1] == 'up' then
  keys = redis.call('ZRANGEBYLEX', KEYS[2], ARGV[2], ARGV[3], 'LIMIT', 0, ARGV[4])
else
  keys = redis.call('ZREVRANGEBYLEX', KEYS[2], ARGV[3], ARGV[2], 'LIMIT', 0, ARGV[4])
end
local left = tonumber(ARGV[5])
local found = {}
for _, key in ipairs(keys) do
  -- `false` where somebody has removed the record alone.
  local value = redis.call('HGET', KEYS[1], key)
  left = left - #(value or '')
  if left < 0 and #found > 0 then
    return found
  end
  found[#found + 1] = key
  found[#found + 1] = value
end
return found
