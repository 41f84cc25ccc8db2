#!lua flags=allow-oom
-- Takes, renews or looks at the lease; announces the caller; returns the holder and all replicas.
-- KEYS: lease, epoch, replicas, farm.
-- ARGV: name, announcement, epoch and nonce of the term that the caller holds, nonce for a new term, lease in ms (0: look only),
--       ms after which an announcement is dropped, highest epoch that the caller knows, the farm's identity as the caller knows it.
-- All times are those of Redis, so that the clocks of replicas need not agree. The lease has no expiry of its own in Redis, which might
-- evict it for having one. A full Redis must not end the lease: whoever leads removes what is old.
if redis.call('GET', KEYS[4]) ~= ARGV[9] then
  -- The farm's key was rotated, Redis was emptied, or it is another farm.
  return {'', '', '', '', {}, 0}
end
local name, announcement = ARGV[1], ARGV[2]
local lease, stale = tonumber(ARGV[6]), tonumber(ARGV[7])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function text(number)
  return string.format('%.0f', number)
end

local holder = redis.call('HMGET', KEYS[1], 'name', 'epoch', 'nonce', 'replica', 'until')
if (tonumber(holder[5] or '') or 0) <= now then
  holder = {false, false, false, false}
end
if lease > 0 then
  if holder[1] == name and holder[2] == ARGV[3] and holder[3] == ARGV[4] then
    redis.call('HSET', KEYS[1], 'until', text(now + lease))
  elseif not holder[1] or holder[1] == name then
    -- After a Redis that lost its last second, the counter may be behind what the caller has seen.
    if (tonumber(redis.call('GET', KEYS[2]) or '0') or 0) < tonumber(ARGV[8]) then
      redis.call('SET', KEYS[2], ARGV[8])
    end
    redis.call('INCR', KEYS[2])
    holder = {name, redis.call('GET', KEYS[2]), ARGV[5], announcement}
    redis.call('HSET', KEYS[1], 'name', holder[1], 'epoch', holder[2], 'nonce', holder[3], 'replica', holder[4],
      'until', text(now + lease))
  end
end

redis.call('HSET', KEYS[3], name, text(now) .. ' ' .. announcement)
local found = redis.call('HGETALL', KEYS[3])
local replicas = {}
for i = 1, #found, 2 do
  local at, record = string.match(found[i + 1], '^(%d+) (.*)$')
  if not at or math.abs(now - tonumber(at)) > stale then
    redis.call('HDEL', KEYS[3], found[i])
  else
    replicas[#replicas + 1] = record
  end
end
return {holder[1] or '', holder[2] or '', holder[3] or '', holder[4] or '', replicas, 1}
