BEGIN TRANSACTION;
CREATE TABLE calibration (
        backend TEXT NOT NULL,
        base_url TEXT NOT NULL,
        model TEXT NOT NULL,
        state BLOB NOT NULL,
        PRIMARY KEY (backend, base_url, model)
    );
CREATE TABLE head (
        session TEXT NOT NULL,
        agent TEXT NOT NULL,
        entrypoint TEXT NOT NULL,
        project TEXT NOT NULL,
        origin TEXT NOT NULL,
        used_at REAL NOT NULL,
        heads BLOB NOT NULL,
        PRIMARY KEY (session, agent, entrypoint)
    );
CREATE TABLE section (
        id INTEGER PRIMARY KEY,
        parent INTEGER NOT NULL,
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        n_characters INTEGER NOT NULL,
        digest BLOB NOT NULL,
        marks BLOB NOT NULL,
        UNIQUE (parent, digest)
    );
INSERT INTO "section" VALUES(1,0,'text','messages.0.text.0',5,X'F50C8CD383269E59D77BB100473E6243',X'');
INSERT INTO "section" VALUES(2,1,'text','messages.1.text.0',6,X'7040EE499483FE74D89E8D9B13DD1B29',X'');
INSERT INTO "section" VALUES(3,2,'text','messages.2.text.0',9,X'F9D8AB86878648201106540A325939EE',X'');
CREATE TABLE turn (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        request_id TEXT NOT NULL,
        started_at REAL NOT NULL,
        launch TEXT NOT NULL,
        session TEXT NOT NULL,
        agent TEXT,
        request_class TEXT,
        entrypoint TEXT,
        project TEXT NOT NULL,
        backend TEXT NOT NULL,
        base_url TEXT NOT NULL,
        model TEXT NOT NULL,
        tokens_prompt INTEGER,
        tokens_cached INTEGER,
        tokens_prefilled INTEGER,
        tokens_out INTEGER,
        ttft_s REAL,
        duration_s REAL NOT NULL,
        stop_reason TEXT,
        tool_calls INTEGER NOT NULL,
        repairs INTEGER NOT NULL,
        error TEXT,
        n_characters INTEGER NOT NULL,
        n_sections INTEGER NOT NULL,
        n_shared INTEGER NOT NULL,
        compared_with INTEGER,
        leaf INTEGER NOT NULL
    );
INSERT INTO "turn" VALUES(1,'req_1',1800000000.5,'launch','s',NULL,'main','cli','/p','vllm','http://one','m',412,380,32,21,0.25,2.5,'tool_use',2,1,NULL,11,2,0,NULL,2);
INSERT INTO "turn" VALUES(2,'req_2',1800000000.5,'launch','s',NULL,'main','cli','/p','vllm','http://one','m',412,380,32,21,0.25,2.5,'tool_use',2,1,NULL,20,3,2,1,3);
CREATE INDEX turn_by_session ON turn (session, agent, id);
CREATE INDEX turn_by_project ON turn (project, id);
CREATE INDEX turn_by_time ON turn (started_at);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('turn',2);
COMMIT;
