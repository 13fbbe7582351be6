-- Stores the progress that a handler reports.
--
-- KEYS  1 META of the shard
-- ARGV  1 runtime, 2 id, 3 the progress, JSON
-- Reply 1, or 0 if the runtime does not hold the task
--
-- Safe to repeat: the same is stored.

if redis.call('HEXISTS', CLAIMS .. ARGV[1], ARGV[2]) == 0 then return 0 end
redis.call('HSET', PROGRESS, ARGV[2], ARGV[3])
return 1
