#!lua flags=allow-oom
-- Gives the lease back if this term has it, and withdraws the caller's announcement.
-- KEYS: lease, replicas. ARGV: name, epoch, nonce.
local holder = redis.call('HMGET', KEYS[1], 'name', 'epoch', 'nonce')
if holder[1] == ARGV[1] and holder[2] == ARGV[2] and holder[3] == ARGV[3] then
  redis.call('DEL', KEYS[1])
end
redis.call('HDEL', KEYS[2], ARGV[1])
return 'OK'
