-- Accepts tasks: writes their records, and puts each into its tenant's mailbox or among the scheduled tasks.
--
-- KEYS  1 META of the shard
-- ARGV  1 the runtime that sends, 2 number of the batch, 8 bytes, 3 its reservation (reserve.lua), or ''
--       then an argument for each task, packed: priority (1-6, and 128 more if its route
--       is more than an actor), 'w' to receive the outcome, '+' to be accepted only
--       with the task before it, or ' ', due ('' now, '+N' in N ms, 'N' at unix ms N), id, tenant, key ('' none, else
--       its window in ms as a double, then the string), data for plugins by name, packed, or '', body
-- Reply 0, or if some were not accepted as sent, for each task: 0 accepted, 1 a repeat, its id exists,
--       2 another tenant has its id, 3 the mailbox is full, 4 the mailbox of a task that goes with it is full,
--       5 its tenant, or that of a task that goes with it, has moved to another shard,
--       or the id of the task that its key stands for
--
-- Safe to repeat: a batch sent again under its number changes nothing and gets the same reply, and no id is accepted
-- twice, whoever sends it. All tasks of a batch are accepted in one step.

-- @include lib/base.lua

local REPLAY = 3600000 -- ms that a reply is kept: longer than anybody retries
local FIRST_TASK = 4
local LARGE_MESSAGE = 65536 -- bytes: a larger one is claimed, not published, or the server might cut its runtime off
local sender, number, reservation = ARGV[1], ARGV[2], ARGV[3]

local sent = shard.step and not shard.torn and call('GET', SENT .. sender)
if sent then
  if sent:sub(1, 8) == number then
    call('PEXPIRE', SENT .. sender, REPLAY) -- a write, so that WAIT waits after a repeat too
    return cmsgpack.unpack(sent:sub(9))
  end
  if struct.unpack('>I8', number) < struct.unpack('>I8', sent) then return 0 end -- a late copy
end

-- @include lib/intact.lua

local function remember(reply) call('SET', SENT .. sender, number .. cmsgpack.pack(reply), 'PX', REPLAY) end

-- @include lib/hand.lua
-- @takes ITEM from lib/accept.lua

if #ARGV == FIRST_TASK and reservation == '' then
  local priority, flag, due, id, name, key, extra, body = struct.unpack(ITEM, ARGV[FIRST_TASK])
  local is_large = #ARGV[FIRST_TASK] - body > LARGE_MESSAGE
  if due == '' and extra == '' and not is_large and hand_over(priority, flag, id, name, key, ARGV[FIRST_TASK]:sub(body)) then
    return 0
  end
end

-- @include lib/accept.lua

local items = {}
for i = FIRST_TASK, #ARGV do items[i - FIRST_TASK + 1] = ARGV[i] end
local verdicts = accept(items, sender, reservation)
if lanes then lanes.only_sends = true end
update_ring(arriving)

begin_writing()
local wake_later = write_accepted()
remember(verdicts or 0)
save_counts()
save_shard()
wake_later()
return verdicts or 0
