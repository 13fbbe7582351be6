-- Deletes messages that have arrived.
--
-- KEYS  1 META of the shard
-- ARGV  the messages
-- Reply how many there were
--
-- Bounded: one batch of messages, as take.lua returned them.
-- Safe to repeat: a deleted message is not there.

-- @include lib/intact.lua

local before = call('ZCARD', OWN .. 'outbox')
write_all('ZREM', OWN .. 'outbox', ARGV)
return before - call('ZCARD', OWN .. 'outbox')
