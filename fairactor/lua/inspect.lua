-- Returns what is known about a task.
--
-- KEYS  1 META of the shard
-- ARGV  1 id, 2 its tenant, or '' for any
-- Reply {} if the tenant has no such task, else {state, record, ms at which it is due by the server's clock or '',
--       runtime or '',
--       ms that the record is kept or -1, progress or '', now in ms by the shard's clock, when it was claimed or 0};
--       the state 'settled' means that the record has it
--
-- Reads only.

-- @include lib/intact.lua
-- @include lib/owner.lua
-- @include lib/locate.lua

local id, tenant = ARGV[1], ARGV[2]
local record = call('GET', TASK .. id)
if not readable(record) or not is_owned_by(tenant, record) then return {} end
local states, runtimes = locate({ id }, { record })
local mark = runtimes[1] and call('HGET', CLAIMS .. runtimes[1], id)
local due = tonumber(call('ZSCORE', DELAYED .. tenant_of(record), id))
return { states[1], record, due and integer(due - math.floor(shard.behind / 1000)) or '', runtimes[1] or '',
  call('PTTL', TASK .. id), call('HGET', PROGRESS, id) or '', integer(shard.ms), mark and integer(made_at(mark)) or 0 }
