-- Takes what another shard has to say.
--
-- KEYS  1 META of the shard
-- ARGV  messages, as `take` of that shard has given them
-- Reply how many there were
--
-- Safe to repeat: what is told twice changes nothing.

-- @include lib/transition.lua

depend_on(SELF) -- nothing that waits may have been sent here
share(SELF).messages = ARGV
carry_out()
return #ARGV
