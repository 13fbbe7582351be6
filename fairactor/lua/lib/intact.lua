-- Refuses to work on a shard that is not there, or that a script broken off in the middle has left.

-- @include lib/base.lua

if not shard.step then return redis.error_reply('NOTOPEN the namespace is not there (any more): open it') end
if shard.torn then return redis.error_reply('TORN a script broke off before its last write: mend the shard') end
