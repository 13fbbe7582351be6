-- Refuses to work on the schedule in the first argument if its tenant has moved to another shard.

-- @takes moving, owner_of from own/lib.lua

if moving((owner_of(ARGV[1]))) == 'gone' then return redis.error_reply('GONE the tenant has moved to another shard') end
