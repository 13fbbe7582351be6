-- Tells which tasks a tenant that has gone to another shard has left here: by their ids, and by their keys.
--
-- KEYS  1 META of the shard
-- ARGV  1 tenant, then for each task: its id, or '' if it does not matter; its key as in send.lua, or ''
-- Reply for each task the id of the task here that has its id or its key; '' if there is none
--
-- Bounded: its caller gives it a batch of tasks.
-- Reads only.

-- @include lib/intact.lua
-- @include lib/key.lua

local name, reply = ARGV[1], {}
for i = 2, #ARGV, 2 do
  local id, key, found = ARGV[i], ARGV[i + 1], ''
  local record = id ~= '' and call('GETRANGE', TASK .. id, 0, 599) -- records may be large
  if record and readable(record) and tenant_of(record) == name then found = id end
  if found == '' and key ~= '' then found = call('GET', KEY .. keyed_field(name, key):sub(9)) or '' end
  reply[#reply + 1] = found
end
return reply
