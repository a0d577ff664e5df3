-- The tables as revision 0001 made them, with one conversation. Never changed.
CREATE TABLE quire_conversation (
	id VARCHAR(40) NOT NULL,
	owner VARCHAR(64) NOT NULL,
	title TEXT,
	system_prompt TEXT,
	model VARCHAR(512),
	generation TEXT,
	max_turns INTEGER NOT NULL,
	num_turns INTEGER NOT NULL,
	num_messages INTEGER NOT NULL,
	num_bytes BIGINT NOT NULL,
	created_ms BIGINT NOT NULL,
	updated_ms BIGINT NOT NULL,
	CONSTRAINT pk_quire_conversation PRIMARY KEY (id)
);
CREATE TABLE quire_lease (
	conversation_id VARCHAR(40) NOT NULL,
	holder VARCHAR(40) NOT NULL,
	expires_s FLOAT NOT NULL,
	CONSTRAINT pk_quire_lease PRIMARY KEY (conversation_id),
	CONSTRAINT fk_quire_lease_conversation FOREIGN KEY(conversation_id) REFERENCES quire_conversation (id) ON DELETE CASCADE
);
CREATE TABLE quire_message (
	id VARCHAR(40) NOT NULL,
	conversation_id VARCHAR(40) NOT NULL,
	position INTEGER NOT NULL,
	turn INTEGER NOT NULL,
	role VARCHAR(16) NOT NULL,
	content TEXT NOT NULL,
	model VARCHAR(512),
	finish_reason VARCHAR(512),
	error VARCHAR(512),
	created_ms BIGINT NOT NULL,
	CONSTRAINT pk_quire_message PRIMARY KEY (id),
	CONSTRAINT fk_quire_message_conversation FOREIGN KEY(conversation_id) REFERENCES quire_conversation (id) ON DELETE CASCADE,
	CONSTRAINT uq_quire_message_position UNIQUE (conversation_id, position)
);
CREATE TABLE quire_schema_version (
	version_num VARCHAR(32) NOT NULL,
	CONSTRAINT quire_schema_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "quire_schema_version" VALUES('0001');
CREATE INDEX ix_quire_conversation_owner ON quire_conversation (owner, updated_ms, id);
INSERT INTO quire_conversation VALUES('conv_00000000000000000000000000000001','ann','Trees','Be brief.',NULL,'{"temperature":0.5}',50,1,2,16,1700000000000,1700000001000);
INSERT INTO quire_message VALUES('msg_00000000000000000000000000000001','conv_00000000000000000000000000000001',1,1,'user','Name a tree.',NULL,NULL,NULL,1700000000000);
INSERT INTO quire_message VALUES('msg_00000000000000000000000000000002','conv_00000000000000000000000000000001',2,1,'assistant','Oak.','tiny','stop',NULL,1700000001000);
