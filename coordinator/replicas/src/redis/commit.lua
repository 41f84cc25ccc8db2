-- Carries out a group of batches, all or nothing, if the writer's term holds the lease.
-- KEYS: lease, last commit, tenants, then the keys that the changes name by their place here.
-- ARGV: epoch, nonce, number of this commit, last number that was answered, last number that was synced, tenant, bytes of a seal,
--       'sync' or '', a letter for the type of each key behind the third, then the changes:
--       'A' stream id value | 'X' stream | 'P' records order key value | 'R' records order key
-- Returns a word, the number of the last commit of this term, and the number of connected replicas where 'sync' is wanted.
--
-- Redis does not undo what a script did before it failed. So all that can fail is looked at first, and the first write is one that Redis
-- refuses wherever it would refuse a later one: it decides about memory, read-only and the like when a script begins.
local FIRST = 10
local number = tonumber(ARGV[3])

local holder = redis.call('HMGET', KEYS[1], 'epoch', 'nonce', 'until')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if holder[1] ~= ARGV[1] or holder[2] ~= ARGV[2] or (tonumber(holder[3] or '') or 0) <= now then
  return {'FENCED', 0, 0}
end

-- What this term committed last, as this Redis knows.
local nonce, last = string.match(redis.call('GET', KEYS[2]) or '', '^(%S+) (%d+)$')
last = nonce == ARGV[2] and tonumber(last) or 0
if last < tonumber(ARGV[5]) then
  -- Redis has lost what it had confirmed. What the leader believes is no longer what the journal says: its term ends.
  redis.call('DEL', KEYS[1])
  return {'FENCED', last, 0}
end
if last < tonumber(ARGV[4]) then
  return {'LOST', last, 0}
end
if number <= last then
  -- This commit was late: its sender has given it up and sent another one.
  return {'LATE', last, 0}
end

local TYPES = {s = 'stream', h = 'hash', z = 'zset'}
local types = 't' .. ARGV[9]
for k = 3, #KEYS do
  local found, wanted = redis.call('TYPE', KEYS[k])['ok'], TYPES[string.sub(types, k - 2, k - 2)] or 'set'
  if found ~= 'none' and found ~= wanted then
    return redis.error_reply('WRONGTYPE the key ' .. KEYS[k] .. ' is a ' .. found .. ' and not a ' .. wanted)
  end
end

-- The last position of each stream, and what was appended by this group.
local ends, appended, frees = {}, {}, true
local i = FIRST
while i <= #ARGV do
  local what = ARGV[i]
  if what == 'A' then
    local key, id, value = KEYS[tonumber(ARGV[i + 1])], ARGV[i + 2], ARGV[i + 3]
    if not ends[key] then
      local newest = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
      ends[key] = newest and tonumber(string.match(newest[1], '^%d+')) or -1
    end
    local position = tonumber(string.match(id, '^%d+'))
    if position > ends[key] then
      ends[key] = position
    else
      -- The same entry may be there already, under another seal if the farm's key has changed.
      local there = appended[key .. ' ' .. id]
      if not there then
        local found = redis.call('XRANGE', key, id, id)[1]
        there = found and found[2][2]
      end
      local seal = tonumber(ARGV[7])
      if not there or string.sub(there, seal + 1) ~= string.sub(value, seal + 1) then
        return {'CONFLICT', position, 0}
      end
      ARGV[i] = 'S'
    end
    appended[key .. ' ' .. id] = value
    frees = false
    i = i + 4
  elseif what == 'X' then
    ends[KEYS[tonumber(ARGV[i + 1])]] = -1
    i = i + 2
  elseif what == 'P' then
    frees = false
    i = i + 5
  else
    i = i + 4
  end
end

local recorded = redis.pcall('SET', KEYS[2], ARGV[2] .. ' ' .. ARGV[3])
if recorded['err'] then
  -- A full Redis accepts what makes room.
  local is_full = string.find(recorded['err'], 'OOM', 1, true)
  if not (is_full and frees and #ARGV >= FIRST) then
    return recorded
  end
  number = last
else
  redis.call('SADD', KEYS[3], ARGV[6])
end

i = FIRST
while i <= #ARGV do
  local what, key = ARGV[i], KEYS[tonumber(ARGV[i + 1])]
  if what == 'A' then
    redis.call('XADD', key, ARGV[i + 2], 'd', ARGV[i + 3])
    i = i + 4
  elseif what == 'S' then
    i = i + 4
  elseif what == 'X' then
    redis.call('UNLINK', key)
    i = i + 2
  elseif what == 'P' then
    redis.call('HSET', key, ARGV[i + 3], ARGV[i + 4])
    redis.call('ZADD', KEYS[tonumber(ARGV[i + 2])], 0, ARGV[i + 3])
    i = i + 5
  else
    redis.call('HDEL', key, ARGV[i + 3])
    redis.call('ZREM', KEYS[tonumber(ARGV[i + 2])], ARGV[i + 3])
    i = i + 4
  end
end

local replicas = 0
if ARGV[8] == 'sync' then
  replicas = tonumber(string.match(redis.call('INFO', 'replication'), 'connected_slaves:(%d+)') or '0')
end
return {'OK', number, replicas}
