-- Sets up the gate of a run that is sent in several calls: its first tasks wait until it opens. If nobody opens it in
-- time, because the sender died, the whole run is canceled.
--
-- KEYS  1 META of the shard
-- ARGV  1 run, 2 ms within which it has to open, 3 and on: numbers of the other shards with tasks of the run
-- Reply 1
--
-- Bounded: a step for each shard.
-- Safe to repeat: it only moves the time.

-- @include lib/intact.lua
-- @include lib/plugins.lua

depend_on(SELF)

begin_writing()
write_these(later)
call('ZADD', OWN .. 'gates', integer(shard.ms + ARGV[2]), ARGV[1])
for i = 3, #ARGV do call('SADD', OWN .. 'gate-to:' .. ARGV[1], ARGV[i]) end
write_these(last)
end_writing()
return 1
