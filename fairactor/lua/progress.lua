-- Notes how far a task has come, as its handler says.
--
-- KEYS  1 META of the shard
-- ARGV  1 runtime, 2 id, 3 the note, JSON
-- Reply 1, or 0 when the runtime does not hold the task: the note is dropped
--
-- Safe to repeat.

if redis.call('HEXISTS', CLAIMS .. ARGV[1], ARGV[2]) == 0 then return 0 end
redis.call('HSET', PROGRESS, ARGV[2], ARGV[3])
return 1
