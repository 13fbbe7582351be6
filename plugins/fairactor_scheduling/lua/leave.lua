-- A runtime looks after what is due no more.
--
-- KEYS  1 META of the shard
-- ARGV  1 runtime
-- Reply 1 if it did until now
--
-- Safe to repeat: it gives up only what is its own.

-- @include lib/intact.lua

if call('GET', OWN .. 'leader') ~= ARGV[1] then return 0 end
call('DEL', OWN .. 'leader')
call('PUBLISH', EVENTS, 'p' .. SELF)
return 1
