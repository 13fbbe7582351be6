-- Handles messages of another shard.
--
-- KEYS  1 META of the shard
-- ARGV  messages, as take.lua of that shard returned them
-- Reply how many there were
--
-- Safe to repeat: a message changes nothing the second time.

-- @include lib/transition.lua

depend_on(SELF) -- this shard may never have had a waiting task
share(SELF).messages = ARGV
carry_out()
return #ARGV
