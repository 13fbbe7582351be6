-- Corrects what the start of a running task took of a limit.
--
-- KEYS  1 META of the shard
-- ARGV  1 runtime, 2 id, 3 limit, as JSON text without quotation marks, 4 what the task used in all
-- Reply 1, or 0 if the runtime does not hold the task, or -1 if its start took nothing of the limit
--
-- Safe to repeat: the number is the total.

-- @include lib/intact.lua
-- @include lib/lanes.lua
-- @include lib/counts.lua
-- @include lib/ring.lua

local claims_key, id, name, used = CLAIMS .. ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local mark = call('HGET', claims_key, id)
if not mark then return 0 end
local tenant, taken = tenant_in(mark), taken_in(mark)
load_tenants({ tenant })
local difference = limits and limits.correct(mark, taken, name, tenant, used)
if not difference then return -1 end

begin_writing()
call('HSET', claims_key, id, with_taken(mark, taken))
if difference ~= 0 then limits.charge(name, tenant, difference) end
save_counts()
save_shard()
return 1
