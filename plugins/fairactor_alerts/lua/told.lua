-- Notes that people were told of an alert.
--
-- KEYS  1 META of the shard
-- ARGV  1 rule, 2 subject, 3 unix ms since when it is, 4 its state
-- Reply 1, or 0 if the alert is another one by now
--
-- Safe to repeat: then it is another one, or has been noted.

-- @include lib/intact.lua

local key, field = OWN .. 'alerts', ARGV[1] .. '\31' .. ARGV[2]
local packed = call('HGET', key, field)
local alert = packed and cmsgpack.unpack(packed)
if not alert or integer(alert[1]) ~= ARGV[3] or alert[2] ~= ARGV[4] then return 0 end
if alert[2] == 'resolved' then
  call('HDEL', key, field)
else
  alert[4] = false
  call('HSET', key, field, cmsgpack.pack(alert))
end
return 1
