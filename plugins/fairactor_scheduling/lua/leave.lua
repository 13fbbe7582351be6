-- Ends a runtime's lead of the shard (due.lua).
--
-- KEYS  1 META of the shard
-- ARGV  1 runtime
-- Reply 1 if it led the shard
--
-- Bounded: one field.
-- Safe to repeat: it ends no other's lead.

-- @include lib/intact.lua

if call('GET', OWN .. 'leader') ~= ARGV[1] then return 0 end
call('DEL', OWN .. 'leader')
call('PUBLISH', EVENTS, 'p' .. SELF)
return 1
