-- Replaces the description of a runtime, which says how its workers fare.
--
-- KEYS  1 META of the shard
-- ARGV  1 runtime, 2 its description, JSON
-- Reply 1, or 0 if the runtime has no lease
--
-- Safe to repeat: the description is replaced by the same one.

if redis.call('HEXISTS', FLEET, ARGV[1]) == 0 then return 0 end
redis.call('HSET', FLEET, ARGV[1], ARGV[2])
return 1
